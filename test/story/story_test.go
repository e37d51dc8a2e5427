package story

import (
	"testing"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/test/tinymodel"
)

func ended(release string, o wire.Outcome) func(wire.Event) bool {
	return func(e wire.Event) bool { return e.Release == release && e.Outcome == o }
}

// A release reaches a device, is probed and answers frames; a second one takes
// over while frames go on; a third that does not give its signed outputs is
// refused, and nothing is lost.
func TestAReleaseReachesADeviceAndIsReplacedWhileRunning(t *testing.T) {
	w := newWorld(t, nil)
	w.startHub()
	d := w.newDevice("gate-1", pictures(t))

	v1 := w.release(tinymodel.Options{Name: "one", Padding: 200_000})
	w.rolloutIs(w.rollOut(v1.Path).ID, rollout.Done)
	d.answers(v1.Path)
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
	n := d.answers(v2.Path)
	eventually(t, "version 2 goes on", func() bool { s, ok := d.snapshot(); return ok && s.Model.Results > n+10 })
	w.rolloutIs(ro.ID, rollout.Halted)
}
