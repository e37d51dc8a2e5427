package story

import (
	"testing"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/test/brokertest"
	"github.com/droverhq/drover/test/tinymodel"
)

// A release reaches a device, is probed and answers frames; a second one takes
// over while frames go on; a third that does not give its signed outputs is
// refused, and nothing is lost.
func TestAReleaseReachesADeviceAndIsReplacedWhileRunning(t *testing.T) {
	for name, kind := range map[string]brokerKind{"embedded": nil, "mosquitto": brokertest.Mosquitto} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, kind)
			w.startHub()
			v1 := w.release(tinymodel.Options{Name: "one", Padding: 200_000})
			d := w.deviceWith("gate-1", v1)
			w.event("gate-1", "version 1 committed", ended(v1.Path, wire.Committed))

			v2 := w.release(tinymodel.Options{Name: "two", Padding: 200_000})
			w.rolloutIs(w.rollOut(v2.Path).ID, rollout.Done)
			d.answers(v2.Path)

			bad := w.badRelease(tinymodel.Options{Name: "three"})
			ro := w.rollOut(bad.Path)
			e := w.event("gate-1", "version 3 refused", ended(bad.Path, wire.Refused))
			if e.Reason != wire.ReasonGolden {
				t.Fatalf("refused for %q (%s), wanted golden", e.Reason, e.Message)
			}
			d.goesOn(v2.Path)
			w.rolloutIs(ro.ID, rollout.Halted)
		})
	}
}

// While version 2 takes over no frame is answered twice or by the wrong
// version, and every frame is accounted for: answered, or counted as dropped
// because a newer one was there.
func TestAHotSwapLeavesNoFrameUnanswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)
	v2 := w.release(tinymodel.Options{Name: "two"})

	first, ok := d.snapshot()
	if !ok {
		t.Fatal("no status")
	}
	before, last := first.Cameras[0], first.Cameras[0]
	w.rollOut(v2.Path)
	var worst time.Duration
	for end := time.Now().Add(patience); last.Release != v2.Path || last.Results < before.Results+60; {
		if time.Now().After(end) {
			t.Fatalf("no swap: %+v", last)
		}
		s, ok := d.snapshot()
		if !ok {
			t.Fatal("no status during the swap")
		}
		c := s.Cameras[0]
		if c.Seq < last.Seq || c.Restarts != before.Restarts {
			t.Fatalf("the camera began anew: %+v after %+v", c, last)
		}
		if last.Release == v2.Path && c.Release != v2.Path {
			t.Fatalf("frame %d is answered by %s after frame %d was by %s", c.Seq, c.Release, last.Seq, last.Release)
		}
		worst = max(worst, time.Duration(c.SinceMicros)*time.Microsecond)
		last = c
		time.Sleep(10 * time.Millisecond)
	}
	frames, answered, dropped := last.Seq-before.Seq, last.Results-before.Results, last.Dropped-before.Dropped
	t.Logf("%d frames, %d answered, %d dropped; longest silence %v", frames, answered, dropped, worst)
	if answered+dropped != frames {
		t.Errorf("%d frames came, %d were answered and %d dropped", frames, answered, dropped)
	}
	// A machine that is busy may cost a frame here and there, but not the time
	// in which no model is there.
	if dropped > frames/10 {
		t.Errorf("%d of %d frames were dropped", dropped, frames)
	}
	d.shows("version 2", func(s statuspage.Snapshot) bool { return s.State.Active != nil && s.State.Active.Path == v2.Path })
}
