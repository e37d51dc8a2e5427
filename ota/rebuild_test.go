package ota_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/delta"
	"github.com/droverhq/drover/ota/internal/disk"
)

// moved is a model some of whose bytes differ by one.
func moved(base []byte) []byte { return movedBy(base, 1) }

func movedBy(base []byte, seed uint64) []byte {
	out := bytes.Clone(base)
	rng := rand.New(rand.NewPCG(1, seed))
	for i := 5; i < len(out); i++ {
		if rng.IntN(50) == 0 {
			out[i]++
		}
	}
	return out
}

func makeDelta(t *testing.T, base, goal []byte) []byte {
	t.Helper()
	d, err := delta.Make(base, goal)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// withDelta names a delta from base, whatever it is, in a manifest.
func (c *cloud) withDelta(base, d []byte) func(*wire.Manifest) {
	return func(m *wire.Manifest) {
		v := &m.Variants[0]
		v.Model = c.blob(moved(modelBytes(1)))
		v.Deltas = []wire.Delta{{Base: wire.NewBlobRef(base).Digest, Size: int64(len(base)), Blob: c.blob(d)}}
	}
}

// told is what events said when the update left a state.
func told(events []wire.Event, from wire.UpdateState) (msgs []string) {
	for _, e := range events {
		if e.From == from {
			msgs = append(msgs, e.Message)
		}
	}
	return msgs
}

func TestDeltas(t *testing.T) {
	base, goal := modelBytes(1), moved(modelBytes(1))
	good := makeDelta(t, base, goal)
	if len(good) > len(goal)/5 {
		t.Fatalf("the delta has %d bytes, the model %d: the test shows nothing", len(good), len(goal))
	}
	wrong, elsewhere := makeDelta(t, base, movedBy(base, 2)), movedBy(goal, 3)
	tests := []struct {
		name   string
		base   []byte // the delta's, by the manifest
		delta  []byte
		change func(*wire.Manifest)
		spoil  func(*cloud)
		disk   func(*disk.Disk)
		// what comes of it
		outcome wire.Outcome
		steps   []wire.UpdateState // up to check, or the end
		bytes   [2]int             // received, least and most
		says    string             // in an event
	}{
		{name: "taken", base: base, delta: good, outcome: wire.Committed, steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Check},
			bytes: [2]int{len(good), len(good) + 5000}, says: fmt.Sprintf("a delta of %d bytes stands for the model of %d", len(good), len(goal))},
		{name: "taken within a budget the model would not fit", base: base, delta: good, change: func(m *wire.Manifest) { m.Budget.DataBytes = 60_000 },
			outcome: wire.Committed, steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Check}, bytes: [2]int{len(good), len(good) + 5000}, says: "a delta of"},
		{name: "base is not here", base: elsewhere, delta: makeDelta(t, elsewhere, goal), outcome: wire.Committed,
			steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Check}, bytes: [2]int{len(goal), len(goal) + 5000}, says: "none of 1 deltas starts from a model that is here"},
		{name: "base is not here and the budget is small", base: elsewhere, delta: makeDelta(t, elsewhere, goal),
			change: func(m *wire.Manifest) { m.Budget.DataBytes = 60_000 }, outcome: wire.Refused, steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Idle},
			bytes: [2]int{0, 5000}, says: "do not fit into the data budget"},
		{name: "gives something else", base: base, delta: wrong, outcome: wire.Committed,
			steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Fetch, wire.Assemble, wire.Check}, bytes: [2]int{len(goal) + len(wrong), len(goal) + len(wrong) + 5000},
			says: "digest differs"},
		{name: "gives something else and the budget is small", base: base, delta: makeDelta(t, base, base), change: func(m *wire.Manifest) { m.Budget.DataBytes = 60_000 },
			outcome: wire.Refused, steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Fetch, wire.Idle}, bytes: [2]int{0, 5000}, says: "do not fit into the data budget"},
		{name: "no delta at all", base: base, delta: []byte("rubbish"), outcome: wire.Committed,
			steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Fetch, wire.Assemble, wire.Check}, bytes: [2]int{len(goal), len(goal) + 5000}, says: "not a delta"},
		{name: "is of another base", base: base, delta: makeDelta(t, elsewhere, goal), outcome: wire.Committed,
			steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Fetch, wire.Assemble, wire.Check}, bytes: [2]int{len(goal), len(goal) + 80_000}, says: "made for another base"},
		{name: "chunks are exchanged", base: base, delta: good, spoil: func(c *cloud) { c.put(wire.NewBlobRef(good).Digest, bytes.Repeat([]byte{1}, len(good))) },
			outcome: wire.Committed, steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Fetch, wire.Assemble, wire.Check}, bytes: [2]int{len(goal), len(goal) + 30*len(good)}, says: "those that came were wrong"},
		{name: "chunks do not come: the network's fault brings nothing larger", base: base, delta: good, spoil: func(c *cloud) { c.put(wire.NewBlobRef(good).Digest, nil) },
			outcome: wire.Refused, steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Idle}, bytes: [2]int{0, 5000}, says: "chunks do not come"},
		{name: "base was damaged", base: base, delta: good, disk: func(d *disk.Disk) {
			d.Damage("blobs/"+wire.NewBlobRef(base).Digest, func(b []byte) []byte { b[99] ^= 1; return b })
		}, outcome: wire.Committed, steps: []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Fetch, wire.Assemble, wire.Check},
			bytes: [2]int{len(goal), len(goal) + len(good) + 5000}, says: "damaged"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := newCloud(t)
			dsk := installed(t, c)()
			w := c.plan(c.release(t, 2, func(m *wire.Manifest) {
				c.withDelta(tc.base, tc.delta)(m)
				if tc.change != nil {
					tc.change(m)
				}
			}))
			if tc.spoil != nil {
				tc.spoil(c)
			}
			synctest.Test(t, func(t *testing.T) {
				d := start(t, c, dsk, &machine{})
				if tc.disk != nil {
					tc.disk(dsk) // while it runs: a start would find it
				}
				d.offer(w)
				s := d.settle()
				if s.Outcome != tc.outcome || (tc.outcome == wire.Refused && s.Reason != wire.ReasonFetch) {
					t.Errorf("%+v", s)
				}
				h := d.history()
				if got := steps(h); len(got) < len(tc.steps) || fmt.Sprint(got[:len(tc.steps)]) != fmt.Sprint(tc.steps) {
					t.Errorf("steps %v, wanted %v", got, tc.steps)
				}
				if n := int(d.FetchStats().Bytes); n < tc.bytes[0] || n > tc.bytes[1] {
					t.Errorf("%d bytes received, wanted %v", n, tc.bytes)
				}
				if all := strings.Join(append(told(h, wire.Verify), append(told(h, wire.Fetch), told(h, wire.Assemble)...)...), "\n"); !strings.Contains(all, tc.says) {
					t.Errorf("events say:\n%s\nnot %q", all, tc.says)
				}
				if tc.outcome == wire.Committed {
					d.mustRun(v2)
					if a, _ := d.Active(); a.Variant.Model.Digest != wire.NewBlobRef(goal).Digest {
						t.Error("another model")
					}
				} else {
					d.mustRun(v1)
				}
				d.stop()
				for _, n := range dsk.Names() {
					if tc.outcome == wire.Committed && (strings.Contains(n, wire.NewBlobRef(tc.delta).Digest) || strings.HasPrefix(n, "parts/")) {
						t.Errorf("%s is left over", n)
					}
				}
			})
		})
	}
}

func TestADeltaFromThePreviousRelease(t *testing.T) {
	c := newCloud(t)
	dsk := installed(t, c)()
	second := c.plan(c.release(t, 2, nil))
	third := c.plan(c.release(t, 3, c.withDelta(modelBytes(1), makeDelta(t, modelBytes(1), moved(modelBytes(1))))))
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, dsk, &machine{})
		d.offer(second)
		d.settle()
		before := d.FetchStats().Bytes
		// No room for three models: the previous one's slot is given up for
		// the new one, but not its bytes while they are needed.
		dsk.Resize(4<<20 + 330_000 + 150_000 + 10_000)
		d.offer(third)
		if s := d.settle(); s.Outcome != wire.Committed {
			t.Errorf("%+v", s)
		}
		d.mustRun(v3)
		if n := d.FetchStats().Bytes - before; n > 60_000 {
			t.Errorf("%d bytes received", n)
		}
		d.stop()
	})
}

func TestAFailedDeltaIsNotTriedAgain(t *testing.T) {
	c := newCloud(t)
	dsk := installed(t, c)()
	w := c.plan(c.release(t, 2, c.withDelta(modelBytes(1), []byte("rubbish"))))
	model := wire.NewBlobRef(moved(modelBytes(1))).Digest
	c.put(model, nil)
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, dsk, &machine{})
		d.offer(w)
		if s := d.settle(); s.Reason != wire.ReasonFetch {
			t.Fatalf("%+v", s)
		}
		n := len(d.history())
		c.blob(moved(modelBytes(1)))
		time.Sleep(2 * time.Minute)
		if s := d.settle(); s.Outcome != wire.Committed {
			t.Errorf("%+v", s)
		}
		h := d.history()[n:]
		if got := steps(h); fmt.Sprint(got[:4]) != fmt.Sprint([]wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Check}) {
			t.Errorf("steps %v", got)
		}
		if says := strings.Join(told(h, wire.Verify), ""); !strings.Contains(says, "a delta failed before") {
			t.Errorf("told: %q", says)
		}
		d.stop()
	})
}

// TestPowerCutAnywhereInADelta lets the power go at every disk operation of an
// update by delta, of one that works and of one that does not.
func TestPowerCutAnywhereInADelta(t *testing.T) {
	base := modelBytes(1)
	for name, d := range map[string][]byte{
		"works": makeDelta(t, base, moved(base)),
		"fails": makeDelta(t, base, movedBy(base, 2)),
	} {
		c := newCloud(t)
		fresh := installed(t, c)
		w := c.plan(c.release(t, 2, c.withDelta(base, d)))
		s := story{"delta " + name, w, func() *machine { return &machine{} }, v2, wire.Committed, nil}
		whole := 0
		synctest.Test(t, func(t *testing.T) {
			d := start(t, c, fresh(), &machine{})
			d.offer(w)
			d.settle()
			d.mustRun(v2)
			d.stop()
			whole = d.disk.Ops()
		})
		step := 1
		if testing.Short() {
			step = 7
		}
		seen := map[wire.UpdateState]bool{}
		for cut := 1; cut <= whole; cut += step {
			t.Run(fmt.Sprintf("%s/%d", name, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { seen[cutOnce(t, c, fresh(), s, cut, disk.Mode(cut%int(disk.NumModes)))] = true })
			})
		}
		if step == 1 && (!seen[wire.Fetch] || !seen[wire.Assemble]) {
			t.Errorf("%s: no cut left the device in fetch or in assemble", name)
		}
	}
}
