package cloud

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
)

// open starts a rollout of a release for whom a selector means.
func open(t *testing.T, f *Fleet, id string, serial int64, release string, s wire.Selector) {
	t.Helper()
	st := stored{
		Plan: rollout.Plan{
			ID: id, Serial: serial, Release: release, Waves: []rollout.Wave{{Selector: s}},
			Frames: 10, Seconds: 60, MaxFailed: 0.1, Deadline: time.Now().Add(time.Hour),
		},
		Progress: rollout.Progress{State: rollout.Running},
	}
	if _, err := f.Registry.AddRollout(t.Context(), registry.Rollout{ID: id, Release: release, Plan: wire.Encode(st), State: string(rollout.Running)}); err != nil {
		t.Fatal(err)
	}
}

// stop ends a rollout.
func stop(t *testing.T, f *Fleet, id string, state rollout.State) {
	t.Helper()
	if _, err := f.Registry.UpdateRollout(t.Context(), id, func(ro *registry.Rollout) error {
		s, err := decodeRollout(*ro)
		if err != nil {
			return err
		}
		s.Progress.State = state
		ro.State, ro.Plan = string(state), json.RawMessage(wire.Encode(s))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// member enrols a device that reports labels, or a state of its own making.
func member(t *testing.T, f *Fleet, id, state string) {
	t.Helper()
	if err := f.Registry.UpsertDevice(t.Context(), registry.Device{ID: id, Shard: "0"}); err != nil {
		t.Fatal(err)
	}
	if state == "" {
		return
	}
	if _, err := f.Registry.RecordState(t.Context(), id, "boot", 1, json.RawMessage(state)); err != nil {
		t.Fatal(err)
	}
}

// TestOnlyWhatAnOpenPlanGives is the rule of what leaves the registry: the
// manifest, models, golden inputs and deltas of the releases that plans which
// are open name, for the devices these mean.
func TestOnlyWhatAnOpenPlanGives(t *testing.T) {
	f := testFleet(t)
	ms, _ := models(2)
	if _, err := f.SignRelease(t.Context(), register(t, f, ms[0]), ""); err != nil {
		t.Fatal(err)
	}
	m := register(t, f, ms[1])
	self, err := f.Registry.Model(t.Context(), m.Model, fmt.Sprint(m.Version))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.addDeltas(t.Context(), &m.Variants[0], ms[1], self, &ReleaseOptions{}); err != nil {
		t.Fatal(err)
	}
	rel, err := f.SignRelease(t.Context(), m, "")
	if err != nil {
		t.Fatal(err)
	}
	v := m.Variants[0]
	if len(v.Deltas) != 1 {
		t.Fatalf("%d deltas", len(v.Deltas))
	}
	raw, err := f.Registry.ReadBlob(t.Context(), rel.Manifest, wire.MaxManifest)
	if err != nil {
		t.Fatal(err)
	}
	granted := map[string]int64{
		rel.Manifest: int64(len(raw)), v.Model.Digest: v.Model.Size, v.Golden.Digest: v.Golden.Size, v.Deltas[0].Blob.Digest: v.Deltas[0].Blob.Size,
	}
	secret, err := f.Registry.PutBytes(t.Context(), []byte("a training set"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"listed", "other", "revoked"} {
		member(t, f, d, "")
	}
	member(t, f, "north", `{"labels":{"site":"north"}}`)
	member(t, f, "south", `{"labels":{"site":"south"}}`)
	member(t, f, "mad", `[]`)
	if err := f.Registry.RevokeDevice(t.Context(), "revoked"); err != nil {
		t.Fatal(err)
	}

	s := &shelf{reg: f.Registry}
	expect := func(when string, devices map[string]bool) {
		t.Helper()
		for d, may := range devices {
			for digest, size := range granted {
				if got, err := s.allowed(t.Context(), d, digest); (err == nil) != may || may && got != size {
					t.Errorf("%s: device %s, blob %.8s: %d bytes of %d, %v", when, d, digest, got, size, err)
				}
			}
			for _, digest := range []string{secret.Digest, digest(ms[0]), "", "../x"} {
				if _, err := s.allowed(t.Context(), d, digest); err == nil {
					t.Errorf("%s: device %s gets %q", when, d, digest)
				}
			}
		}
	}
	nobody := map[string]bool{"listed": false, "other": false, "north": false, "south": false, "mad": false, "revoked": false, "unknown": false}
	expect("before any plan", nobody)
	open(t, f, "one", 1, rel.Path, wire.Selector{Devices: []string{"listed", "revoked", "unknown"}, Labels: map[string]string{"site": "north"}})
	some := map[string]bool{"listed": true, "other": false, "north": true, "south": false, "mad": false, "revoked": false, "unknown": false}
	expect("with a plan for some", some)
	stop(t, f, "one", rollout.Done)
	expect("after it is done, for those that come later", some)
	open(t, f, "two", 2, rel.Path, wire.Selector{Threshold: wire.Whole})
	all := map[string]bool{"listed": true, "other": true, "north": true, "south": true, "mad": false, "revoked": false, "unknown": false}
	expect("with a plan for all", all)
	stop(t, f, "two", rollout.Halted)
	expect("after a halt", some)
}

// TestAManifestThatCannotBeRead is given to devices, which will refuse it; the
// blobs of other plans are served all the same.
func TestAManifestThatCannotBeRead(t *testing.T) {
	f := testFleet(t)
	ms, _ := models(1)
	good := register(t, f, ms[0])
	rel, err := f.SignRelease(t.Context(), good, "")
	if err != nil {
		t.Fatal(err)
	}
	bad, err := f.Registry.PutBytes(t.Context(), []byte(`{"v":99}`))
	if err != nil {
		t.Fatal(err)
	}
	later, err := f.Registry.AddRelease(t.Context(), registry.Release{Path: "release/tiny/99", Model: "tiny", Version: good.Version, Manifest: bad.Digest})
	if err != nil {
		t.Fatal(err)
	}
	member(t, f, "cam", "")
	for i, path := range []string{rel.Path, later.Path} {
		open(t, f, fmt.Sprint("p", i), int64(i+1), path, wire.Selector{Threshold: wire.Whole})
	}
	s := &shelf{reg: f.Registry}
	for digest, size := range map[string]int64{bad.Digest: 8, rel.Manifest: 0, good.Variants[0].Model.Digest: good.Variants[0].Model.Size} {
		if got, err := s.allowed(t.Context(), "cam", digest); err != nil || size > 0 && got != size {
			t.Errorf("blob %.8s: %d bytes, %v", digest, got, err)
		}
	}
}
