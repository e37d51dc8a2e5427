package story

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/test/tinymodel"
)

// badRelease is signed by the right key, but its golden outputs are those of
// another model.
func (w *world) badRelease(o tinymodel.Options) registry.Release {
	w.t.Helper()
	o.Swapped = true
	model, spec := tinymodel.Build(o)
	return w.handSigned(model, spec, tinymodel.Golden())
}

// handSigned signs whatever it is given as the next version, past the checks
// that push and release make: what a mistake in a build, or a thief of the
// models key, could bring about.
func (w *world) handSigned(model []byte, spec infer.Spec, golden *wire.Golden) registry.Release {
	w.t.Helper()
	ctx := w.t.Context()
	g := wire.Encode(golden)
	for _, b := range [][]byte{model, g} {
		if _, err := w.fleet.Registry.PutBytes(ctx, b); err != nil {
			w.t.Fatal(err)
		}
	}
	// The registry wants a model for a release; its spec is a good one.
	_, good := tinymodel.Build(tinymodel.Options{})
	m, err := w.fleet.Registry.AddModel(ctx, registry.Model{Name: "tiny", TFLite: wire.NewBlobRef(model).Digest, Spec: good})
	if err != nil {
		w.t.Fatal(err)
	}
	manifest := wire.Encode(&wire.Manifest{
		V: wire.Version, Model: m.Name, Version: m.Version, Created: time.Now().Unix(),
		Variants: []wire.Variant{{Name: "cpu", Model: wire.NewBlobRef(model), Spec: spec, Golden: wire.NewBlobRef(g), Tolerance: 1}},
	})
	blob, err := w.fleet.Registry.PutBytes(ctx, manifest)
	if err != nil {
		w.t.Fatal(err)
	}
	rel, err := w.fleet.Registry.AddRelease(ctx, registry.Release{Path: wire.ReleasePath(m.Name, m.Version), Model: m.Name, Version: m.Version, Manifest: blob.Digest})
	if err != nil {
		w.t.Fatal(err)
	}
	w.signTarget(rel.Path, manifest)
	return rel
}

// signTarget lists bytes in a new version of models without reading them.
func (w *world) signTarget(path string, b []byte) {
	w.t.Helper()
	ctx := w.t.Context()
	old, _, err := w.fleet.Repo().Latest(ctx, wire.RoleModels)
	if err != nil {
		w.t.Fatal(err)
	}
	var m metadata.Metadata[metadata.TargetsType]
	if _, err := m.FromBytes(old); err != nil {
		w.t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	m.Signed.Version++
	m.Signed.Targets[path] = &metadata.TargetFiles{Length: int64(len(b)), Hashes: metadata.Hashes{"sha256": sum[:]}}
	raw := resign(w.t, &m, keys(w.t, w.fleet)[wire.RoleModels][0])
	if err := w.fleet.Repo().Append(ctx, publish.Metadata{Role: wire.RoleModels, Version: m.Signed.Version, Raw: raw}); err != nil {
		w.t.Fatal(err)
	}
}

// badModel is a model that nobody should run.
type badModel struct {
	name   string
	model  []byte
	spec   infer.Spec
	golden *wire.Golden
	reason wire.Reason // on the device
}

func badModels() []badModel {
	model, spec := tinymodel.Build(tinymodel.Options{Name: "good"})
	noise := make([]byte, 20_000)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	labels := spec
	labels.Labels = append(append([]string{}, spec.Labels...), "grey")
	wider := spec
	wider.Contract.Input.Shape = []int{1, 2 * tinymodel.Side, 2 * tinymodel.Side, 3}
	scale := spec
	scale.Contract.Output.Quant = infer.Quant{Scales: []float32{1.0 / 128}, ZeroPoints: []int32{0}}
	empty := &wire.Golden{V: wire.Version}
	return []badModel{
		{"random bytes", noise, spec, tinymodel.Golden(), wire.ReasonModel},
		{"cut in the middle", model[:len(model)/2], spec, tinymodel.Golden(), wire.ReasonModel},
		{"cut at the end", model[:len(model)-40], spec, tinymodel.Golden(), wire.ReasonModel},
		{"three labels for two outputs", model, labels, tinymodel.Golden(), wire.ReasonMalformed},
		{"another input shape", model, wider, tinymodel.Golden(), wire.ReasonContract},
		{"another output scale", model, scale, tinymodel.Golden(), wire.ReasonContract},
		{"no golden inputs", model, spec, empty, wire.ReasonMalformed},
	}
}

// A model that is none, is cut, or does not fit its description does not enter
// the registry; one that was signed all the same is refused by the device, with
// the reason, and nothing is lost.
func TestABrokenModelIsRefusedOnBothSides(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)
	for _, k := range badModels() {
		t.Log(k.name)
		if len(k.golden.Cases) > 0 {
			m, err := w.fleet.Push(t.Context(), cloud.PushOptions{Name: "tiny", Model: k.model, Spec: k.spec, Host: w.hostOptions()})
			if err == nil {
				t.Errorf("%s: pushed as %s", k.name, m.Ref())
			} else {
				t.Logf("  push: %v", err)
			}
		}
		bad := w.handSigned(k.model, k.spec, k.golden)
		ro := w.rollOut(bad.Path)
		e := w.event("gate-1", k.name+" refused", ended(bad.Path, wire.Refused))
		if e.Reason != k.reason {
			t.Errorf("%s: refused for %q, wanted %q: %s", k.name, e.Reason, k.reason, e.Message)
		}
		t.Logf("  device: %s: %s", e.Reason, e.Message)
		w.rolloutIs(ro.ID, rollout.Halted)
	}
	d.goesOn(v1.Path)
	s, ok := d.snapshot()
	if !ok || s.Model.Restarts != 0 || s.State.Active == nil || s.State.Active.Path != v1.Path {
		t.Errorf("%+v", s.Model)
	}
	v9 := w.release(tinymodel.Options{Name: "nine"})
	w.rolloutIs(w.rollOut(v9.Path).ID, rollout.Done)
	d.answers(v9.Path)
}
