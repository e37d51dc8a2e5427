package ota_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
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

// TestPowerCutAnywhere lets the power go at every single disk operation of an
// update. The next start must have a whole release to run, and without any
// help from the cloud but what is retained must end with version 2.
func TestPowerCutAnywhere(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	whole := 0
	synctest.Test(t, func(t *testing.T) {
		d := start(t, c, base(), &machine{})
		d.offer(w)
		d.settle()
		d.stop()
		whole = d.disk.Ops()
	})
	if whole < 60 {
		t.Fatalf("an update of only %d operations", whole)
	}
	t.Logf("%d operations", whole)
	step := 1
	if testing.Short() {
		step = 7
	}
	seen := map[wire.UpdateState]bool{}
	for cut := 1; cut <= whole; cut += step {
		for mode := disk.Lost; mode < disk.NumModes; mode++ {
			t.Run(fmt.Sprintf("%d/%d", cut, mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { cutOnce(t, c, base(), w, cut, mode, seen) })
			})
		}
	}
	for _, s := range []wire.UpdateState{wire.Verify, wire.Fetch, wire.Assemble, wire.Check, wire.Probe, wire.Activate, wire.Probation, wire.Commit} {
		if !seen[s] && step == 1 {
			t.Errorf("no cut left the device in %s", s)
		}
	}
}

func cutOnce(t *testing.T, c *cloud, dsk *disk.Disk, w *repo.World, cut int, mode disk.Mode, seen map[wire.UpdateState]bool) {
	dsk.CutAt(cut)
	m := &machine{}
	if d, err := prepare(t, c, dsk, m); err == nil { // the power may go while it opens
		d.run()
		d.offer(w)
		for range 100 {
			if dsk.IsCut() || d.Status().Release == v2 && d.Status().State == wire.Idle {
				break
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		d.stop()
	}
	d, err := prepare(t, c, dsk.AfterCut(mode), &machine{least: m.least})
	if err != nil {
		t.Fatal(err)
	}
	seen[d.State().Step] = true
	if got := d.m.answering(); got != v1 && got != v2 {
		t.Fatalf("after the cut %q answers", got)
	}
	d.mustRun(d.m.answering())
	d.run()
	d.offer(w)
	d.settle()
	if d.mustRun(v2); t.Failed() {
		t.Log(d.history())
	}
	if p := d.State(); p.Last.Outcome == wire.RolledBack {
		t.Errorf("one cut ended the trial: %+v", p.Last)
	}
	for _, n := range d.disk.Names() {
		if strings.HasSuffix(n, ".part") || strings.HasSuffix(n, ".tmp") {
			t.Errorf("%s was left behind", n)
		}
	}
	if blobs := slices.DeleteFunc(d.disk.Names(), func(n string) bool { return !strings.HasPrefix(n, "blobs/") }); len(blobs) > 6 {
		t.Errorf("%d blobs for two releases", len(blobs))
	}
	d.stop()
}

// reach runs an update until it is in a state.
func reach(t *testing.T, c *cloud, dsk *disk.Disk, w *repo.World, m *machine, s wire.UpdateState) *device {
	t.Helper()
	d := start(t, c, dsk, m)
	d.offer(w)
	if got := d.Status().State; got != s {
		t.Fatalf("in %s, wanted %s", got, s)
	}
	return d
}

func forever(ctx context.Context, _ ota.Candidate) error { <-ctx.Done(); return ctx.Err() }

func TestATrialSurvivesPowerCutsButNotMany(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	synctest.Test(t, func(t *testing.T) {
		m := &machine{judge: forever}
		d := reach(t, c, base(), w, m, wire.Probation)
		for i := 1; i <= ota.MaxTrials; i++ {
			next := d.kill(disk.Lost)
			d, _ = prepare(t, c, next, m)
			d.mustRun(v1) // it starts with what was committed
			d.run()
			if s := d.Status(); s.State != wire.Probation || m.answering() != v2 {
				t.Fatalf("restart %d: %+v, %s answers", i, s, m.answering())
			}
		}
		d = start(t, c, d.kill(disk.Lost), m)
		if s := d.settle(); s.Outcome != wire.RolledBack || s.Reason != wire.ReasonInterrupted {
			t.Errorf("%+v", s)
		}
		d.mustRun(v1)
		d.offer(w)
		time.Sleep(time.Hour)
		d.mustRun(v1)
		d.stop()
	})
}

func TestOrderlyStopsDoNotCount(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	synctest.Test(t, func(t *testing.T) {
		m := &machine{judge: forever}
		d := reach(t, c, base(), w, m, wire.Probation)
		for range 10 {
			d.stop()
			d = start(t, c, d.disk, m)
		}
		if s := d.Status(); s.State != wire.Probation {
			t.Fatalf("%+v", s)
		}
		d.stop()
		m.judge = nil
		d = start(t, c, d.disk, m)
		if s := d.settle(); s.Outcome != wire.Committed {
			t.Errorf("%+v", s)
		}
		d.mustRun(v2)
		d.stop()
	})
}

func TestAFetchGoesOnWhereItWas(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	ref := wire.NewBlobRef(modelBytes(2))
	synctest.Test(t, func(t *testing.T) {
		full := c.blobs[ref.Digest]
		c.blobs[ref.Digest] = full[:2*wire.ChunkSize]
		m := &machine{}
		d := reach(t, c, base(), w, m, wire.Fetch)
		time.Sleep(3 * time.Second) // a pause ends: what came is synced
		synctest.Wait()
		next := d.kill(disk.Lost)
		c.blobs[ref.Digest] = full
		d = start(t, c, next, m)
		if s := d.settle(); s.Outcome != wire.Committed {
			t.Errorf("%+v", s)
		}
		if got := d.FetchStats(); got.Good != 1 {
			t.Errorf("after the restart %d chunks came, one was missing", got.Good)
		}
		d.stop()
	})
}

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
					delete(c.blobs, wire.NewBlobRef(modelBytes(2)).Digest)
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
