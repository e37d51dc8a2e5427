package story

import (
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/test/tinymodel"
)

// badRelease is signed by the right key, but its golden outputs are those of
// another model.
func (w *world) badRelease(o tinymodel.Options) registry.Release {
	w.t.Helper()
	o.Swapped = true
	model, spec := tinymodel.Build(o)
	ctx := w.t.Context()
	m, err := w.fleet.Push(ctx, cloud.PushOptions{Name: "tiny", Model: model, Spec: spec, Host: w.hostOptions()})
	if err != nil {
		w.t.Fatal(err)
	}
	golden := wire.Encode(tinymodel.Golden())
	if _, err := w.fleet.Registry.PutBytes(ctx, golden); err != nil {
		w.t.Fatal(err)
	}
	rel, err := w.fleet.SignRelease(ctx, &wire.Manifest{
		V: wire.Version, Model: m.Name, Version: m.Version, Created: time.Now().Unix(),
		Variants: []wire.Variant{{Name: "cpu", Model: wire.NewBlobRef(model), Spec: spec, Golden: wire.NewBlobRef(golden), Tolerance: 1}},
	}, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return rel
}
