package story

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/test/tinymodel"
)

// bundle makes a bundle of a release.
func (w *world) bundle(rel registry.Release, o cloud.BundleOptions) []byte {
	w.t.Helper()
	o.Release = rel.Path
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	b, err := w.fleet.Bundle(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.t.TempDir(), "b")
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := b.WriteTo(f); err != nil {
		w.t.Fatal(err)
	}
	f.Close()
	raw, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// drop puts a file into the inbox.
func (d *device) drop(name string, content []byte) {
	d.t.Helper()
	d.write(filepath.Join("inbox", name), string(content))
}

// inbox waits until a file is there.
func (d *device) inbox(name string) {
	d.t.Helper()
	eventually(d.t, name+" in the inbox", func() bool {
		_, err := os.Stat(filepath.Join(d.dir, "state", "inbox", name))
		return err == nil
	})
}

// said is an event about a bundle.
func about(bundle string, reason wire.Reason) func(wire.Event) bool {
	return func(e wire.Event) bool {
		return e.Kind == wire.EventTrust && e.Reason == reason && contains(e.Message, bundle)
	}
}

// A device that has never seen its broker takes two releases, one after the
// other, from files, and refuses what is expired, old, or of others.
func TestAReleaseArrivesByFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1, v2 := w.release(tinymodel.Options{Name: "one", Padding: 300_000}), w.release(tinymodel.Options{Name: "two", Padding: 300_000})
	d := makeDevice(t, "gate-1")
	d.write("enrolment-token", w.token(time.Hour).String())
	sticks := openDir(t)
	d.configure(cameras("door", folder(pictures(t))) + "inbox: {patience: 1s, media: [" + sticks + "]}\n")
	d.start()
	d.said("the enrolment", func(e wire.Event) bool { return contains(e.Message, "enrolled") })
	w.stopHub()
	d.shows("that the broker is away", func(s statuspage.Snapshot) bool { return !s.Connected && s.LinkError != "" })

	w.rollOut(v1.Path)
	first := w.bundle(v1, cloud.BundleOptions{Valid: time.Hour})
	d.drop("one.drover", first[:len(first)/2]) // a copy that is on its way …
	time.Sleep(100 * time.Millisecond)
	d.drop("one.drover", first) // … and arrives
	d.answers(v1.Path)
	d.inbox("done/one.drover")
	if e := d.said("the end", func(e wire.Event) bool { return e.Outcome == wire.Committed }); e.Release != v1.Path {
		t.Errorf("committed %+v", e)
	}
	if s, _ := d.snapshot(); s.Fetch.Bytes != 0 || s.Fetch.Good == 0 {
		t.Errorf("fetched over the network: %+v", s.Fetch)
	}

	// Another fleet's, a cut one, an expired one, one for another device.
	other := newWorld(t, nil)
	foreign := other.release(tinymodel.Options{Name: "foreign"})
	other.rollOut(foreign.Path)
	d.drop("foreign.drover", other.bundle(foreign, cloud.BundleOptions{Valid: time.Hour}))
	if e := d.said("another fleet's", about("foreign.drover", wire.ReasonSignature)); !contains(e.Message, "another fleet") {
		t.Errorf("foreign: %s", e.Message)
	}
	d.inbox("foreign.drover.refused")
	d.inbox("foreign.drover.reason")
	d.drop("half.drover", first[:len(first)/2])
	d.said("a cut one", about("half.drover", wire.ReasonMalformed))

	// A stick.
	w.abortAll()
	w.rollOut(v2.Path)
	stick := filepath.Join(sticks, "KINGSTON", "drover")
	if err := os.MkdirAll(stick, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stick, "two.drover"), w.bundle(v2, cloud.BundleOptions{Valid: time.Hour}), 0o644); err != nil {
		t.Fatal(err)
	}
	d.answers(v2.Path)
	d.said("the stick's end", func(e wire.Event) bool {
		return e.Kind == wire.EventTrust && contains(e.Message, "two.drover", "is done with")
	})
	d.drop("again.drover", first)
	d.said("an old one", about("again.drover", wire.ReasonRollback))
	d.goesOn(v2.Path)
}

// abortAll ends what runs, so that another rollout may begin.
func (w *world) abortAll() {
	w.t.Helper()
	all, err := w.fleet.Rollouts(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, r := range all {
		if r.Progress.State.Open() {
			if _, err := w.fleet.AbortRollout(w.t.Context(), r.ID, "test"); err != nil {
				w.t.Fatal(err)
			}
		}
	}
}

// A bundle whose plan means other devices is refused by one that hears of it by
// hand alone, and says so; the hub learns of it later.
func TestABundleForAnotherDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1, v2 := w.release(tinymodel.Options{Name: "one"}), w.release(tinymodel.Options{Name: "two"})
	d := w.deviceWith("gate-1", v1)
	w.stopHub()
	w.device2(v2)
	d.drop("theirs.drover", w.bundle(v2, cloud.BundleOptions{Valid: time.Hour}))
	if e := d.said("somebody else's", about("theirs.drover", wire.ReasonPlan)); !contains(e.Message, "it brings release/tiny/2") {
		t.Errorf("wrong device: %s", e.Message)
	}
	d.inbox("theirs.drover.refused")
	d.goesOn(v1.Path)
	w.startHub()
	w.event("gate-1", "the refusal at the hub", about("theirs.drover", wire.ReasonPlan))
}

// A device that loses power while it takes a release from a file goes on from
// that file when it comes back; the broker stays away all the time.
func TestAPowerCutWhileAReleaseArrivesByFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1, v2 := w.release(tinymodel.Options{Name: "one"}), w.release(tinymodel.Options{Name: "two", Padding: 3_000_000})
	d := w.deviceWith("gate-1", v1)
	w.stopHub()
	w.rollOut(v2.Path)
	whole := w.bundle(v2, cloud.BundleOptions{Valid: time.Hour})
	d.drop("two.drover", whole)
	d.shows("an update under way", func(s statuspage.Snapshot) bool { return s.State.Update.State != wire.Idle })
	d.kill()
	d.start()
	d.answers(v2.Path)
	d.inbox("done/two.drover")
	d.kill()
	d.start()
	d.answers(v2.Path)
}

// A device that has heard of a release by the broker, which cannot bring it,
// takes the bytes out of a bundle, though the bundle's metadata is older; one
// damaged blob costs that file alone.
func TestABundleBringsWhatTheBrokerCannot(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1, v2 := w.release(tinymodel.Options{Name: "one"}), w.release(tinymodel.Options{Name: "two", Padding: 600_000})
	d := w.deviceWith("gate-1", v1)
	ref, path := w.model(v2)
	ro := w.rollOut(v2.Path)
	whole := w.bundle(v2, cloud.BundleOptions{Valid: time.Hour})
	cutShort(t, path, 0) // the hub has lost it
	d.shows("the fetch", func(s statuspage.Snapshot) bool { return s.State.Update.State == wire.Fetch })
	damaged := bytes.Clone(whole)
	damaged[len(damaged)-2*wire.ChunkSize] ^= 1
	d.configure(cameras("door", folder(pictures(t))) + "inbox: {patience: 1s}\n")
	d.stop()
	d.start()
	d.drop("damaged.drover", damaged)
	d.said("damage", about("damaged.drover", wire.ReasonDigest))
	d.drop("whole.drover", whole)
	d.answers(v2.Path)
	d.shows("the model", func(s statuspage.Snapshot) bool { return s.Model.Digest == ref.Digest })
	d.inbox("done/whole.drover")
	w.rolloutIs(ro.ID, rollout.Done)
}

// device2 rolls a release out to a device that is not there.
func (w *world) device2(rel registry.Release) {
	w.t.Helper()
	eventually(w.t, "no other rollout runs", func() bool {
		_, err := w.fleet.StartRollout(w.t.Context(), cloud.RolloutOptions{Release: rel.Path, Waves: onlyFor("gate-2")})
		return err == nil
	})
}

func onlyFor(device string) []rollout.Wave {
	return []rollout.Wave{{Selector: wire.Selector{Devices: []string{device}}}}
}
