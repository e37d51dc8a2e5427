package ota_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/internal/disk"
	"github.com/droverhq/drover/test/repo"
)

// steps are the states an update went through, as its events tell.
func steps(events []wire.Event) []wire.UpdateState {
	var out []wire.UpdateState
	for _, e := range events {
		if e.Kind == wire.EventUpdate {
			out = append(out, e.To)
		}
	}
	return out
}

func TestADeviceGetsItsFirstReleaseAndThenABetterOne(t *testing.T) {
	c := newCloud(t)
	first := c.plan(c.release(t, 1, func(m *wire.Manifest) { m.Epoch = 3 }))
	second := c.plan(c.release(t, 2, func(m *wire.Manifest) { m.Epoch = 4; m.Requires = []string{"deltas"} }))
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		d := start(t, c, disk.New(roomy), m)
		d.mustRun("")
		d.offer(first)
		if s := d.settle(); s.Outcome != wire.Committed || s.Release != v1 || s.Reason != wire.ReasonNone || s.Plan != "plan-1" {
			t.Fatalf("%+v", s)
		}
		d.mustRun(v1)
		want := []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Check, wire.Probe, wire.Activate, wire.Probation, wire.Commit, wire.Idle}
		if diff := cmp.Diff(want, steps(d.history())); diff != "" {
			t.Error(diff)
		}
		d.offer(second)
		if s := d.settle(); s.Outcome != wire.Committed || s.Release != v2 {
			t.Fatalf("%+v", s)
		}
		d.mustRun(v2)
		if m.least != 4 {
			t.Errorf("the anchor is at %d", m.least)
		}
		active, previous, candidate := d.Releases()
		if active == nil || active.Path != v2 || previous == nil || previous.Path != v1 || candidate != nil {
			t.Errorf("slots: %v, %v, %v", active, previous, candidate)
		}
		wantCalls := []string{
			"probe " + v1, "activate " + v1, "probation " + v1 + " 10", "commit " + v1,
			"probe " + v2, "activate " + v2, "probation " + v2 + " 10", "commit " + v2,
		}
		if diff := cmp.Diff(wantCalls, m.calls); diff != "" {
			t.Error(diff)
		}
		// The same plan again, and after a restart, changes nothing.
		events := len(d.history())
		d.offer(second)
		time.Sleep(time.Hour)
		if n := len(d.history()); n != events {
			t.Errorf("the plan of the active release starts something: %v", d.history()[events:])
		}
		d.stop()
		d = start(t, c, d.disk, m)
		time.Sleep(time.Hour)
		d.mustRun(v2)
		if h := d.history(); len(h) != 0 {
			t.Errorf("a restart of a device at rest: %v", h)
		}
		if len(m.calls) != len(wantCalls) {
			t.Errorf("calls after the restart: %v", m.calls[len(wantCalls):])
		}
		d.stop()
	})
}

// TestRefusals is every way in which a release is refused before it answers a
// single frame. Version 1 goes on as if nothing had happened.
func TestRefusals(t *testing.T) {
	refusal := func(r wire.Reason) func(context.Context, ota.Candidate) error {
		return func(context.Context, ota.Candidate) error { return &ota.Refusal{Reason: r, Message: "as told"} }
	}
	tests := []struct {
		name    string
		change  func(*wire.Manifest)
		spoil   func(*cloud)
		machine *machine
		disk    int64
		want    wire.Reason
		in      wire.UpdateState
		forGood bool
		then    string // what another plan brings; default: the same refusal
	}{
		{name: "lacks a capability", change: func(m *wire.Manifest) { m.Requires = []string{"magic"} }, want: wire.ReasonRequires, in: wire.Verify, forGood: true},
		{name: "no variant fits", change: func(m *wire.Manifest) { m.Variants[0].Requires = []string{"edgetpu"} }, want: wire.ReasonRequires, in: wire.Verify, forGood: true},
		{name: "epoch too low", machine: &machine{least: 1}, change: func(m *wire.Manifest) { m.Epoch = 0 }, want: wire.ReasonEpoch, in: wire.Verify, forGood: true},
		{name: "model does not come", spoil: func(c *cloud) { c.put(wire.NewBlobRef(modelBytes(2)).Digest, nil) }, want: wire.ReasonFetch, in: wire.Fetch},
		{name: "model is exchanged", spoil: func(c *cloud) { c.put(wire.NewBlobRef(modelBytes(2)).Digest, modelBytes(7)) }, want: wire.ReasonFetch, in: wire.Fetch},
		{name: "data budget", change: func(m *wire.Manifest) { m.Budget.DataBytes = 100_000 }, then: v2, want: wire.ReasonFetch, in: wire.Fetch},
		{name: "no space", disk: 4<<20 + 300_000, want: wire.ReasonSpace, in: wire.Fetch},
		{name: "chunks right, whole wrong", change: func(m *wire.Manifest) { m.Variants[0].Model.Digest = strings.Repeat("0", 64) },
			spoil: func(c *cloud) { c.put(strings.Repeat("0", 64), modelBytes(2)) }, want: wire.ReasonDigest, in: wire.Assemble, forGood: true},
		{name: "golden inputs unreadable", change: func(m *wire.Manifest) { m.Variants[0].Golden = wire.NewBlobRef([]byte("x")) },
			spoil: func(c *cloud) { c.blob([]byte("x")) }, want: wire.ReasonMalformed, in: wire.Check, forGood: true},
		{name: "no model", change: func(m *wire.Manifest) { m.Variants[0].Model = wire.NewBlobRef([]byte("rubbish")) },
			spoil: func(c *cloud) { c.blob([]byte("rubbish")) }, want: wire.ReasonModel, in: wire.Check, forGood: true},
		{name: "other tensors", machine: &machine{inspect: func([]byte) (infer.Contract, []string, error) {
			k := contract()
			k.Input.Shape = []int{1, 9, 8, 1}
			return k, nil, nil
		}}, want: wire.ReasonContract, in: wire.Check, forGood: true},
		{name: "custom operator", machine: &machine{ops: []string{"edgetpu-custom-op"}}, want: wire.ReasonRequires, in: wire.Check, forGood: true},
		{name: "golden inputs differ", machine: &machine{probe: refusal(wire.ReasonGolden)}, want: wire.ReasonGolden, in: wire.Probe, forGood: true},
		{name: "too slow", machine: &machine{probe: refusal(wire.ReasonLatency)}, want: wire.ReasonLatency, in: wire.Probe, forGood: true},
		{name: "crashes in the cage", machine: &machine{probe: refusal(wire.ReasonCrash)}, want: wire.ReasonCrash, in: wire.Probe, forGood: true},
		{name: "probe fails by itself", machine: &machine{probe: func(context.Context, ota.Candidate) error { return errors.New("fork failed") }}, want: wire.ReasonInternal, in: wire.Probe},
		{name: "probe never ends", machine: &machine{probe: func(ctx context.Context, _ ota.Candidate) error { <-ctx.Done(); return ctx.Err() }}, want: wire.ReasonDeadline, in: wire.Probe, forGood: true},
		{name: "probe ignores its end", machine: &machine{probe: func(context.Context, ota.Candidate) error { time.Sleep(time.Hour); return nil }}, want: wire.ReasonDeadline, in: wire.Probe, forGood: true},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := newCloud(t)
			base := installed(t, c)
			w := c.plan(c.release(t, 2, tc.change))
			if tc.spoil != nil {
				tc.spoil(c)
			}
			again := c.plan(v2)
			synctest.Test(t, func(t *testing.T) {
				dsk := base()
				if tc.disk > 0 {
					dsk.Resize(tc.disk)
				}
				m := tc.machine
				if m == nil {
					m = &machine{}
				}
				d := start(t, c, dsk, m)
				d.mustRun(v1)
				d.offer(w)
				s := d.settle()
				if s.Outcome != wire.Refused || s.Reason != tc.want || s.Release != v2 || s.Message == "" {
					t.Errorf("%+v", s)
				}
				h := d.history()
				if last := h[len(h)-1]; last.From != tc.in || last.Reason != tc.want {
					t.Errorf("ended in %s for %s, wanted %s for %s", last.From, last.Reason, tc.in, tc.want)
				}
				d.mustRun(v1)
				if slices.ContainsFunc(m.calls, func(c string) bool { return strings.HasPrefix(c, "activate") }) {
					t.Errorf("calls: %v", m.calls)
				}
				// It is not tried again at once; for good, never, not even
				// after a restart.
				d.offer(w)
				if n := len(d.history()); n != len(h) {
					t.Errorf("tried again at once: %v", d.history()[len(h):])
				}
				if tc.forGood {
					d.stop()
					d = start(t, c, d.disk, m)
					time.Sleep(3 * time.Hour)
					if n := len(d.history()); n != 0 {
						t.Errorf("tried again after a restart: %v", d.history())
					}
				}
				// A new plan brings another try.
				events := len(d.history())
				d.offer(again)
				if d.settle(); len(d.history()) == events {
					t.Error("a new plan does not bring another try")
				}
				if tc.then == "" {
					tc.then = v1
				}
				d.mustRun(tc.then)        // v2 when what had arrived serves the next try
				time.Sleep(2 * time.Hour) // let work that was left behind end
				d.stop()
			})
		})
	}
}

// TestRollbacks is every way back from a trial.
func TestRollbacks(t *testing.T) {
	forever := func(ctx context.Context, _ ota.Candidate) error { <-ctx.Done(); return ctx.Err() }
	tests := []struct {
		name    string
		machine *machine
		then    func(*testing.T, *cloud, *device)
		want    wire.Reason
		in      wire.UpdateState
	}{
		{name: "does not start", machine: &machine{activate: func(context.Context, ota.Candidate) error {
			return &ota.Refusal{Reason: wire.ReasonCrash, Message: "died while warming up"}
		}}, want: wire.ReasonCrash, in: wire.Activate},
		{name: "start never ends", machine: &machine{activate: forever}, want: wire.ReasonDeadline, in: wire.Activate},
		{name: "crashes", machine: &machine{judge: func(context.Context, ota.Candidate) error {
			return &ota.Refusal{Reason: wire.ReasonCrash, Message: "3 crashes"}
		}}, want: wire.ReasonCrash, in: wire.Probation},
		{name: "too few frames", machine: &machine{judge: forever}, want: wire.ReasonNoFrames, in: wire.Probation},
		{name: "way back fails too", machine: &machine{
			judge: func(context.Context, ota.Candidate) error {
				return &ota.Refusal{Reason: wire.ReasonHang, Message: "hangs"}
			},
			goBack: func() error { return errors.New("no memory") },
		}, want: wire.ReasonHang, in: wire.Probation},
		{name: "rollout is halted", machine: &machine{judge: forever}, then: func(_ *testing.T, c *cloud, d *device) {
			c.SetPlans()
			c.Pass(time.Minute)
			d.offer(c.Publish())
		}, want: wire.ReasonSuperseded, in: wire.Probation},
		{name: "rollout goes back", machine: &machine{judge: forever}, then: func(_ *testing.T, c *cloud, d *device) {
			d.offer(c.plan(v1))
		}, want: wire.ReasonSuperseded, in: wire.Probation},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			c := newCloud(t)
			base := installed(t, c)
			w := c.plan(c.release(t, 2, nil))
			synctest.Test(t, func(t *testing.T) {
				m := tc.machine
				if m == nil {
					m = &machine{}
				}
				d := start(t, c, base(), m)
				d.offer(w)
				if tc.then != nil {
					if d.Status().State != wire.Probation || m.answering() != v2 {
						t.Fatalf("%+v, %s answers", d.Status(), m.answering())
					}
					if active, previous, _ := d.Releases(); active.Path != v2 || previous.Path != v1 {
						t.Errorf("on trial: active %v, previous %v", active, previous)
					}
					tc.then(t, c, d)
				}
				s := d.settle()
				if s.Outcome != wire.RolledBack || s.Reason != tc.want || s.Message == "" {
					t.Errorf("%+v", s)
				}
				h := d.history()
				i := slices.IndexFunc(h, func(e wire.Event) bool { return e.To == wire.Rollback })
				if i < 0 || h[i].From != tc.in || h[i].Reason != tc.want {
					t.Errorf("history %v", h)
				}
				d.mustRun(v1)
				if active, previous, candidate := d.Releases(); active.Path != v1 || previous != nil || candidate != nil {
					t.Errorf("slots: %v, %v, %v", active, previous, candidate)
				}
				d.offer(w)
				time.Sleep(time.Hour)
				if n := len(steps(d.history())); n != len(steps(h)) {
					t.Errorf("tried again: %v", d.history()[len(h):])
				}
				d.stop()
			})
		})
	}
}

func TestANewerPlanSupersedesAFetch(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	slow := c.plan(c.release(t, 2, nil))
	newer := c.plan(c.release(t, 3, nil))
	c.put(wire.NewBlobRef(modelBytes(2)).Digest, nil) // it would take long
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, base(), &machine{})
		d.offer(slow)
		if s := d.Status(); s.State != wire.Fetch || s.Total == 0 {
			t.Fatalf("%+v", s)
		}
		d.offer(newer)
		if s := d.settle(); s.Release != v3 || s.Outcome != wire.Committed {
			t.Errorf("%+v", s)
		}
		d.mustRun(v3)
		h := d.history()
		i := slices.IndexFunc(h, func(e wire.Event) bool { return e.Outcome != "" })
		if h[i].Release != v2 || h[i].Reason != wire.ReasonSuperseded || h[i].From != wire.Fetch {
			t.Errorf("the first end is %+v", h[i])
		}
		d.stop()
	})
}

func TestWhatMayPassIsTriedAgain(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, base(), &machine{})
		d.silence(true)
		d.offer(w)
		if s := d.settle(); s.Reason != wire.ReasonFetch {
			t.Fatalf("%+v", s)
		}
		d.silence(false)
		time.Sleep(2 * time.Minute)
		if s := d.settle(); s.Outcome != wire.Committed {
			t.Errorf("%+v", s)
		}
		d.mustRun(v2)
		d.stop()
	})
}

func TestTriesEnd(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, base(), &machine{probe: func(context.Context, ota.Candidate) error { return errors.New("fork failed") }})
		d.offer(w)
		time.Sleep(10 * time.Hour)
		n := 0
		for _, e := range d.history() {
			if e.Outcome == wire.Refused {
				n++
			}
		}
		if n != ota.MaxTries {
			t.Errorf("%d tries", n)
		}
		d.stop()
	})
}

func TestExpiredMetadataStopsUpdatesNotTheDevice(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	w = w.Clone().Expire("timestamp", c.Time.Add(2*time.Minute)).SealTimestamp()
	synctest.Test(t, func(t *testing.T) {
		// The probe outlasts the timestamp: by then nobody knows whether the
		// rollout was halted.
		m := &machine{probe: func(context.Context, ota.Candidate) error { time.Sleep(5 * time.Minute); return nil }}
		d := start(t, c, base(), m)
		d.offer(w)
		if s := d.settle(); s.Outcome != wire.RolledBack || s.Reason != wire.ReasonExpired {
			t.Errorf("%+v", s)
		}
		d.mustRun(v1)
		if slices.Contains(m.calls, "activate "+v2) {
			t.Errorf("calls: %v", m.calls)
		}
		d.offer(w)
		time.Sleep(24 * time.Hour)
		if s := d.Status(); s.State != wire.Idle || len(d.State().Refusals) != 0 {
			t.Errorf("%+v, remembered: %v", s, d.State().Refusals)
		}
		d.mustRun(v1)
		// With fresh metadata it goes on.
		m.probe = nil
		c.Pass(25 * time.Hour)
		d.offer(c.Publish())
		if s := d.settle(); s.Outcome != wire.Committed {
			t.Errorf("%+v", s)
		}
		d.mustRun(v2)
		d.stop()
	})
}

func TestHaltBeforeActivationIsObeyedAtTheLastMoment(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		m := &machine{probe: func(ctx context.Context, _ ota.Candidate) error { <-release; return nil }}
		d := start(t, c, base(), m)
		d.offer(w)
		if d.Status().State != wire.Probe {
			t.Fatalf("%+v", d.Status())
		}
		c.SetPlans()
		c.Pass(time.Minute)
		halt := c.Publish()
		// The halt is in the mailbox when the probe ends, whichever the loop
		// takes first.
		if err := halt.Offer(offerer{d.Updater}); err != nil {
			t.Fatal(err)
		}
		close(release)
		synctest.Wait()
		d.settle()
		d.mustRun(v1)
		d.stop()
	})
}

func TestForgedMetadataIsToldOnceAndHasNoEffect(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil)).Clone()
	w.Raw["timestamp"] = []byte(strings.Replace(string(w.Raw["timestamp"]), `"sig":"`, `"sig":"00`, 1))
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, base(), &machine{})
		for range 5 {
			d.offer(w)
		}
		h := d.history()
		if len(h) != 1 || h[0].Kind != wire.EventTrust || h[0].Reason == wire.ReasonNone {
			t.Errorf("%v", h)
		}
		d.mustRun(v1)
		d.stop()
	})
}

func TestAFleetRollbackNeedsNoBytes(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	forth, back := c.plan(c.release(t, 2, nil)), c.plan(v1)
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, base(), &machine{})
		d.offer(forth)
		d.settle()
		d.mustRun(v2)
		d.silence(true)
		bytes := d.FetchStats().Bytes
		d.offer(back)
		if s := d.settle(); s.Outcome != wire.Committed || s.Release != v1 || d.FetchStats().Bytes != bytes {
			t.Errorf("%+v, %d bytes", s, d.FetchStats().Bytes-bytes)
		}
		d.mustRun(v1)
		d.stop()
	})
}

func TestLabelsSelect(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	path := c.release(t, 2, nil)
	p := repo.Plan("by-label", 9, path)
	p.Selector = wire.Selector{Labels: map[string]string{"site": "north"}}
	c.SetPlans(p)
	c.Pass(time.Minute)
	w := c.Publish()
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, base(), &machine{})
		d.SetLabels(map[string]string{"site": "south"})
		d.offer(w)
		d.settle()
		d.mustRun(v1)
		d.SetLabels(map[string]string{"site": "north"})
		synctest.Wait()
		if s := d.settle(); s.Release != v2 || s.Plan != "by-label" {
			t.Errorf("%+v", s)
		}
		d.mustRun(v2)
		d.stop()
	})
}
