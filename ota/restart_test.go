package ota_test

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/internal/disk"
	"github.com/droverhq/drover/test/repo"
)

var allCuts = flag.Bool("all-cuts", false, "try what every cut leaves in all modes of the disk, not in one each")

// TestPowerCutAnywhere lets the power go at every single disk operation of an
// update. The next start must have a whole release to run, and without any
// help from the cloud but what is retained must end where the update would
// have ended.
func TestPowerCutAnywhere(t *testing.T) {
	c := newCloud(t)
	base := installed(t, c)
	w := c.plan(c.release(t, 2, nil))
	crash := func(context.Context, ota.Candidate) error {
		return &ota.Refusal{Reason: wire.ReasonCrash, Message: "3 crashes"}
	}
	for _, s := range []story{
		{"commit", w, func() *machine { return &machine{} }, v2, wire.Committed, []wire.UpdateState{
			wire.Verify, wire.Fetch, wire.Assemble, wire.Check, wire.Probe, wire.Activate, wire.Probation, wire.Commit,
		}},
		{"rollback", w, func() *machine { return &machine{judge: crash} }, v1, wire.RolledBack, []wire.UpdateState{wire.Probation, wire.Rollback}},
		{"refusal", w, func() *machine { return &machine{probe: crash} }, v1, wire.Refused, []wire.UpdateState{wire.Probe}},
	} {
		whole := 0
		synctest.Test(t, func(t *testing.T) {
			d := start(t, c, base(), s.machine())
			d.offer(w)
			d.settle()
			d.mustRun(s.runs)
			d.stop()
			whole = d.disk.Ops()
		})
		if whole < 50 {
			t.Fatalf("%s: an update of only %d operations", s.name, whole)
		}
		step := 1
		if testing.Short() {
			step = 7
		}
		seen := map[wire.UpdateState]bool{}
		for cut := 1; cut <= whole; cut += step {
			for mode := disk.Lost; mode < disk.NumModes; mode++ {
				if !*allCuts && int(mode) != cut%int(disk.NumModes) {
					continue // neighbouring cuts take turns
				}
				t.Run(fmt.Sprintf("%s/%d/%d", s.name, cut, mode), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { seen[cutOnce(t, c, base(), s, cut, mode)] = true })
				})
			}
		}
		for _, st := range s.through {
			if !seen[st] && step == 1 {
				t.Errorf("%s: no cut left the device in %s", s.name, st)
			}
		}
	}
}

// story is an update and how it ends.
type story struct {
	name    string
	world   *repo.World
	machine func() *machine
	runs    string
	outcome wire.Outcome
	through []wire.UpdateState
}

// cutOnce returns the state in which the cut left the device.
func cutOnce(t *testing.T, c *cloud, dsk *disk.Disk, s story, cut int, mode disk.Mode) wire.UpdateState {
	dsk.CutAt(cut)
	m := s.machine()
	if d, err := prepare(t, c, dsk, m); err == nil { // the power may go while it opens
		d.run()
		d.offer(s.world)
		for range 100 {
			if dsk.IsCut() || d.Status().Release == v2 && d.Status().State == wire.Idle {
				break
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		d.stop()
	}
	next := s.machine()
	next.least = m.least
	d, err := prepare(t, c, dsk.AfterCut(mode), next)
	if err != nil {
		t.Fatal(err)
	}
	left := d.State().Step
	if got := next.answering(); got != v1 && got != s.runs {
		t.Fatalf("after the cut %q answers", got)
	}
	d.mustRun(next.answering())
	d.run()
	d.offer(s.world)
	st := d.settle()
	d.mustRun(s.runs)
	if st.Release != v2 || st.Outcome != s.outcome {
		t.Errorf("ended %+v", st)
	}
	blobs := 0
	for _, n := range d.disk.Names() {
		if strings.HasSuffix(n, ".part") || strings.HasSuffix(n, ".tmp") {
			t.Errorf("%s was left behind", n)
		}
		if strings.HasPrefix(n, "blobs/") {
			blobs++
		}
	}
	if want := map[string]int{v1: 3, v2: 6}[s.runs]; blobs != want {
		t.Errorf("%d blobs, wanted %d", blobs, want)
	}
	if t.Failed() {
		t.Log(d.history())
	}
	d.stop()
	return left
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
		full := c.get(ref.Digest)
		c.put(ref.Digest, full[:2*wire.ChunkSize])
		m := &machine{}
		d := reach(t, c, base(), w, m, wire.Fetch)
		time.Sleep(3 * time.Second) // a pause ends: what came is synced
		synctest.Wait()
		next := d.kill(disk.Lost)
		c.put(ref.Digest, full)
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
