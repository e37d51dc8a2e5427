package story

import (
	"os"
	"testing"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/test/brokertest"
	"github.com/droverhq/drover/test/tinymodel"
)

// A device that starts while the broker is away answers by what it has, says
// what is missing, and takes the update when the broker comes.
func TestADeviceStartsWithoutItsBroker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1, v2 := w.release(tinymodel.Options{Name: "one"}), w.release(tinymodel.Options{Name: "two"})
	d := w.deviceWith("gate-1", v1)
	d.stop()
	w.stopHub()

	d.start()
	d.goesOn(v1.Path)
	s := d.shows("that the broker is away", func(s statuspage.Snapshot) bool { return !s.Connected && s.LinkError != "" })
	if !contains(s.LinkError, "connection refused") {
		t.Errorf("link error %q", s.LinkError)
	}
	ro := w.rollOut(v2.Path)
	w.startHub()
	w.rolloutIs(ro.ID, rollout.Done)
	d.answers(v2.Path)
	d.shows("the connection", func(s statuspage.Snapshot) bool { return s.Connected && s.LinkError == "" })
}

// A broker that restarts in the middle of a fetch, and forgets everything, costs
// time and no byte.
func TestTheBrokerRestartsInTheMiddleOfAFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, brokertest.Mosquitto)
	w.startHub()
	v1, v2 := w.release(tinymodel.Options{Name: "one"}), w.release(tinymodel.Options{Name: "two", Padding: 600_000})
	d := w.deviceWith("gate-1", v1)

	ref, path := w.model(v2)
	good := cutShort(t, path, 5*wire.ChunkSize)
	ro := w.rollOut(v2.Path)
	s := d.shows("half a fetch", func(s statuspage.Snapshot) bool {
		return s.State.Update.State == wire.Fetch && s.State.Update.Done >= 5*wire.ChunkSize
	})
	w.broker.Stop(t)
	d.shows("that the broker is away", func(s statuspage.Snapshot) bool { return !s.Connected })
	d.goesOn(v1.Path)
	overwrite(t, path, good)
	w.broker.Start(t)
	w.rolloutIs(ro.ID, rollout.Done)
	d.answers(v2.Path)
	after := d.shows("the whole model", func(s statuspage.Snapshot) bool { return s.Model.Digest == ref.Digest })
	if s.State.Update.Done >= ref.Size || after.Fetch.Good > uint64(2*ref.Count()) {
		t.Errorf("%d bytes before the restart; %d good chunks for %d", s.State.Update.Done, after.Fetch.Good, ref.Count())
	}
	w.once("gate-1", v2)
}

// cutShort leaves the first n bytes of a file and returns all of them.
func cutShort(t *testing.T, path string, n int64) []byte {
	t.Helper()
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
	return good
}

// once says that a device committed a release exactly once and never failed.
func (w *world) once(device string, rel registry.Release) {
	w.t.Helper()
	w.event(device, "commit", ended(rel.Path, wire.Committed))
	for _, o := range []wire.Outcome{wire.Committed, wire.Refused, wire.RolledBack} {
		want := 0
		if o == wire.Committed {
			want = 1
		}
		if n := w.count(device, ended(rel.Path, o)); n != want {
			w.t.Errorf("%s: %d events %q of %s, wanted %d", device, n, o, rel.Path, want)
		}
	}
}

// A hub that is killed in the middle of a rollout goes on with it when it comes
// back; no device updates twice and no event is lost or stored twice.
func TestTheHubIsKilledInTheMiddleOfARollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, brokertest.Mosquitto)
	kill := w.startHubProcess()
	v1, v2 := w.release(tinymodel.Options{Name: "one"}), w.release(tinymodel.Options{Name: "two", Padding: 600_000})
	names := []string{"gate-1", "gate-2"}
	var devices []*device
	for _, n := range names {
		devices = append(devices, w.newDevice(n, pictures(t)))
	}
	w.rolloutIs(w.rollOut(v1.Path).ID, rollout.Done)

	_, path := w.model(v2)
	good := cutShort(t, path, 5*wire.ChunkSize)
	ro := w.rollOut(v2.Path)
	for _, d := range devices {
		d.shows("a fetch under way", func(s statuspage.Snapshot) bool {
			return s.State.Update.State == wire.Fetch && s.State.Update.Done >= wire.ChunkSize
		})
	}
	kill()
	overwrite(t, path, good)
	for _, d := range devices {
		d.goesOn(v1.Path)
	}
	kill = w.startHubProcess()
	devices[0].shows("a release after the fetch", func(s statuspage.Snapshot) bool { return s.State.Update.State != wire.Fetch })
	kill()
	w.startHubProcess()
	w.rolloutIs(ro.ID, rollout.Done)
	for i, d := range devices {
		d.answers(v2.Path)
		w.once(names[i], v1)
		w.once(names[i], v2)
	}
}
