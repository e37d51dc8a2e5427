package ota_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/internal/disk"
	"github.com/droverhq/drover/ota/store"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// TestDamagedActiveRelease spoils each file of the active release while the
// device is off.
func TestDamagedActiveRelease(t *testing.T) {
	for _, what := range []string{"manifest", "model"} {
		t.Run(what, func(t *testing.T) {
			c := newCloud(t)
			base := installed(t, c)
			w := c.plan(c.release(t, 2, nil))
			synctest.Test(t, func(t *testing.T) {
				m := &machine{}
				d := start(t, c, base(), m)
				d.offer(w)
				d.settle()
				a, _ := d.Active()
				d.stop()
				digest := a.Release.Digest
				if what == "model" {
					digest = a.Variant.Model.Digest
				}
				d.disk.Damage("blobs/"+digest, func(b []byte) []byte { b[7] ^= 4; return b })
				d, err := prepare(t, c, d.disk, m)
				if err != nil {
					t.Fatal(err)
				}
				d.mustRun(v1) // the previous one takes over at once
				d.run()       // and what the plan names is fetched again
				if s := d.settle(); s.Outcome != wire.Committed || s.Release != v2 {
					t.Errorf("%+v", s)
				}
				d.mustRun(v2)
				told := d.history()[0]
				if told.Kind != wire.EventStart || told.Release != v2 || !strings.Contains(told.Message, "damaged") {
					t.Errorf("told: %+v", told)
				}
				d.stop()
			})
		})
	}
}

func TestDamagedOnlyReleaseIsFetchedAgain(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	synctest.Test(t, func(t *testing.T) {
		m := &machine{}
		dsk := base()
		dsk.Damage("blobs/"+wire.NewBlobRef(modelBytes(1)).Digest, func(b []byte) []byte { return b[:9] })
		d, err := prepare(t, c, dsk, m)
		if err != nil {
			t.Fatal(err)
		}
		d.mustRun("")
		d.run()
		if s := d.settle(); s.Outcome != wire.Committed || s.Release != v1 {
			t.Errorf("%+v", s)
		}
		d.mustRun(v1)
		if _, previous, _ := d.Releases(); previous != nil {
			t.Errorf("the damaged release is kept as the previous one: %v", previous)
		}
		d.stop()
	})
}

func TestAnOldReleaseOnDiskIsNotRunBelowTheEpoch(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	synctest.Test(t, func(t *testing.T) {
		d, err := prepare(t, c, base(), &machine{least: 9})
		if err != nil {
			t.Fatal(err)
		}
		d.mustRun("")
		// An anchor that cannot be asked does not stop the device.
		if d, err = prepare(t, c, base(), &machine{anchor: errors.New("no TPM answers")}); err != nil {
			t.Fatal(err)
		}
		d.mustRun(v1)
	})
}

func TestDamagedJournalBeginsAnew(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	synctest.Test(t, func(t *testing.T) {
		m := &machine{judge: forever}
		d := reach(t, c, base(), w, m, wire.Probation)
		next := d.kill(disk.Kept)
		for _, n := range []string{"journal.a", "journal.b"} {
			next.Damage(n, func(b []byte) []byte { return b[:20] })
		}
		m.judge = nil
		d, err := prepare(t, c, next, m)
		if err != nil {
			t.Fatal(err)
		}
		d.mustRun(v1)
		if _, _, candidate := d.Releases(); candidate != nil {
			t.Errorf("candidate %v of an update that is forgotten", candidate)
		}
		d.run()
		if s := d.settle(); s.Outcome != wire.Committed || s.Release != v2 {
			t.Errorf("%+v", s)
		}
		d.stop()
	})
}

// TestFullDisk makes the disk full in every state, and later gives it room.
func TestFullDisk(t *testing.T) {
	for _, s := range []wire.UpdateState{wire.Fetch, wire.Probe, wire.Activate, wire.Probation} {
		t.Run(string(s), func(t *testing.T) {
			c := newCloud(t)
			base := installed(t, c)
			w := c.plan(c.release(t, 2, nil))
			synctest.Test(t, func(t *testing.T) {
				gate := make(chan struct{})
				wait := func(context.Context, ota.Candidate) error { <-gate; return nil }
				m := &machine{}
				switch s {
				case wire.Probe:
					m.probe = wait
				case wire.Activate:
					m.activate = wait
				case wire.Probation:
					m.judge = wait
				}
				dsk := base()
				d := start(t, c, dsk, m)
				d.silence(s == wire.Fetch)
				if s == wire.Fetch { // the manifest must be there
					d.silence(false)
					c.put(wire.NewBlobRef(modelBytes(2)).Digest, nil)
				}
				d.offer(w)
				if got := d.Status().State; got != s {
					t.Fatalf("in %s", got)
				}
				dsk.Resize(0)
				c.blob(modelBytes(2))
				close(gate)
				st := d.settle()
				if st.Reason != wire.ReasonSpace || st.Outcome == wire.Committed {
					t.Errorf("%+v", st)
				}
				d.mustRun(v1)
				dsk.Resize(roomy)
				for range 10 {
					time.Sleep(10 * time.Minute)
				}
				if st := d.settle(); st.Outcome != wire.Committed {
					t.Errorf("with room again: %+v", st)
				}
				d.mustRun(v2)
				d.stop()
			})
		})
	}
}

func TestSpaceIsMadeAtTheCostOfThePreviousRelease(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	second := c.plan(c.release(t, 2, nil))
	third := c.plan(c.release(t, 3, nil))
	synctest.Test(t, func(t *testing.T) {
		dsk := base()
		d := start(t, c, dsk, &machine{})
		d.offer(second)
		d.settle()
		dsk.Resize(4<<20 + 330_000 + 150_000 - 30_000) // two models and a bit, not three
		d.offer(third)
		if s := d.settle(); s.Outcome != wire.Committed || s.Release != v3 {
			t.Errorf("%+v", s)
		}
		d.mustRun(v3)
		if _, previous, _ := d.Releases(); previous == nil || previous.Path != v2 {
			t.Errorf("previous %v", previous)
		}
		d.stop()
	})
}

// TestOnARealFolder is the whole way once more, without any simulation but the
// children's.
func TestOnARealFolder(t *testing.T) {
	c := newCloud(t)
	w := c.plan(c.release(t, 1, nil))
	path := filepath.Join(t.TempDir(), "state")
	m := &machine{}
	for run := range 2 {
		dir, err := store.OpenDir(path)
		if err != nil {
			t.Fatal(err)
		}
		st, err := store.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		tc, err := trust.Open(trust.Options{Store: st, Root: c.Root(), BuildTime: repo.Start()})
		if err != nil {
			t.Fatal(err)
		}
		d := &device{t: t, cloud: c, m: m}
		over := make(chan wire.Event, 100)
		d.Updater, err = ota.New(ota.Config{
			Device: "cam-1", Store: st, Trust: ota.FromTrust(tc), Fetcher: fetch.New(fetch.Config{Source: d}),
			Prober: m, Activator: m, Health: m, Anchor: m, Inspect: m.Inspect,
			OnEvent: func(e wire.Event) { over <- e },
		})
		if err != nil {
			t.Fatal(err)
		}
		if run == 1 {
			a, ok := d.Active()
			if !ok || a.Release.Path != v1 || !strings.HasPrefix(a.ModelPath, path) {
				t.Errorf("active after the restart: %+v %v", a.Release, ok)
			}
			if b, err := a.Model(); err != nil || string(b) != string(modelBytes(1)) {
				t.Errorf("model: %d bytes, %v", len(b), err)
			}
			dir.Close()
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		if err := w.Offer(offerer{d.Updater}); err != nil {
			t.Fatal(err)
		}
		for e := range over {
			if e.Outcome != "" {
				if e.Outcome != wire.Committed {
					t.Errorf("%+v", e)
				}
				break
			}
		}
		cancel()
		<-ended
		dir.Close()
	}
}
