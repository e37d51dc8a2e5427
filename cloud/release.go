package cloud

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
)

// ReleaseOptions make a registered model ready for devices.
type ReleaseOptions struct {
	Model      string          // name@version, name@alias
	Golden     []GoldenPicture // empty: GoldenPatterns
	Tolerance  int             // quanta an output may differ; default 2
	Epoch      uint64
	Budget     wire.Budget
	Notes      string
	Report     []byte   // evaluation report, JSON; may be nil
	NoDelta    bool     // make no deltas
	DeltaFrom  []string // released models (name@version, name@alias) to make deltas from; default the last three of the name
	Passphrase string   // of the models key
	// Unsigned registers the release without signing it: several people have to
	// (DraftRelease).
	Unsigned bool
	Host     host.Options
}

// defaultTolerance lets kernels of other processors round differently: XNNPACK
// and NEON may each be one quantum off, in opposite directions.
const defaultTolerance = 2

// Release measures golden outputs, writes the manifest, and signs it with the
// models key. Devices hear of it only by a rollout.
func (f *Fleet) Release(ctx context.Context, o ReleaseOptions) (registry.Release, error) {
	m, err := f.Registry.ModelByRef(ctx, o.Model)
	if err != nil {
		return registry.Release{}, err
	}
	rel, err := f.Registry.Release(ctx, ReleaseOf(m.Ref()))
	if err == nil && o.Unsigned {
		return rel, nil
	}
	if err == nil {
		return rel, f.finishRelease(ctx, rel, o.Passphrase)
	}
	if !errors.Is(err, registry.ErrNotFound) {
		return registry.Release{}, err
	}
	model, err := f.Registry.ReadBlob(ctx, m.TFLite, wire.MaxBlob)
	if err != nil {
		return registry.Release{}, err
	}
	pictures := o.Golden
	if len(pictures) == 0 {
		if pictures, err = GoldenPatterns(&m.Spec); err != nil {
			return registry.Release{}, err
		}
	}
	golden, err := goldenOf(ctx, o.Host, model, &m.Spec, pictures)
	if err != nil {
		return registry.Release{}, fmt.Errorf("cloud: release %s: %w", m.Ref(), err)
	}
	manifest := &wire.Manifest{
		V: wire.Version, Model: m.Name, Version: m.Version, Created: time.Now().Unix(), Epoch: o.Epoch, Notes: o.Notes,
		Budget: o.Budget, Dataset: m.Dataset,
	}
	variant, err := f.variant(ctx, "cpu", model, m.Spec, golden, orDefault(o.Tolerance, defaultTolerance))
	if err != nil {
		return registry.Release{}, err
	}
	if err := f.addDeltas(ctx, &variant, model, m, &o); err != nil {
		return registry.Release{}, err
	}
	manifest.Variants = []wire.Variant{variant}
	if o.Report != nil {
		if _, err := f.Registry.PutBytes(ctx, o.Report); err != nil {
			return registry.Release{}, err
		}
		ref := wire.NewBlobRef(o.Report)
		manifest.Report = &ref
	}
	if o.Unsigned {
		return f.registerRelease(ctx, manifest)
	}
	return f.SignRelease(ctx, manifest, o.Passphrase)
}

// finishRelease signs a release that was registered, but whose signing was cut
// off; its manifest stays as it was. One that is signed is publish.ErrExists.
func (f *Fleet) finishRelease(ctx context.Context, rel registry.Release, passphrase string) error {
	signed, err := publish.Releases(ctx, f.Repo())
	if err != nil {
		return err
	}
	if _, done := signed[rel.Path]; done {
		return fmt.Errorf("cloud: release %s: %w, and a release never changes; register a new version of the model to release that", rel.Path, publish.ErrExists)
	}
	keys, err := f.signers(ctx, wire.RoleModels, passphrase)
	if err != nil {
		return err
	}
	raw, err := f.Registry.ReadBlob(ctx, rel.Manifest, wire.MaxManifest)
	if err != nil {
		return err
	}
	_, err = publish.AddRelease(ctx, f.Repo(), keys, raw, time.Now())
	return err
}

// variant stores what a variant is made of and describes it.
func (f *Fleet) variant(ctx context.Context, name string, model []byte, spec infer.Spec, golden *wire.Golden, tolerance int) (wire.Variant, error) {
	g := wire.Encode(golden)
	for _, b := range [][]byte{model, g} {
		if _, err := f.Registry.PutBytes(ctx, b); err != nil {
			return wire.Variant{}, err
		}
	}
	return wire.Variant{Name: name, Model: wire.NewBlobRef(model), Spec: spec, Golden: wire.NewBlobRef(g), Tolerance: tolerance}, nil
}

// SignRelease signs a manifest as it is and registers it; its blobs must have
// been stored. It is the last step of Release, apart for releases that are put
// together by hand.
func (f *Fleet) SignRelease(ctx context.Context, m *wire.Manifest, passphrase string) (registry.Release, error) {
	if err := m.Check(); err != nil {
		return registry.Release{}, err
	}
	keys, err := f.signers(ctx, wire.RoleModels, passphrase)
	if err != nil {
		return registry.Release{}, err
	}
	rel, err := f.registerRelease(ctx, m)
	if err != nil {
		return rel, err
	}
	_, err = publish.AddRelease(ctx, f.Repo(), keys, wire.Encode(m), time.Now())
	return rel, err
}

// registerRelease comes before signing: a release that was signed but is
// unknown could not be served; one that is known but not signed is signed by
// trying again.
func (f *Fleet) registerRelease(ctx context.Context, m *wire.Manifest) (registry.Release, error) {
	blob, err := f.Registry.PutBytes(ctx, wire.Encode(m))
	if err != nil {
		return registry.Release{}, err
	}
	return f.Registry.AddRelease(ctx, registry.Release{Path: m.Path(), Model: m.Model, Version: m.Version, Epoch: int64(m.Epoch), Manifest: blob.Digest})
}

// Manifest reads a release's manifest.
func (f *Fleet) Manifest(ctx context.Context, release string) (*wire.Manifest, error) {
	rel, err := f.Registry.Release(ctx, release)
	if err != nil {
		return nil, err
	}
	raw, err := f.Registry.ReadBlob(ctx, rel.Manifest, wire.MaxManifest)
	if err != nil {
		return nil, err
	}
	return wire.DecodeManifest(raw)
}

// ReleaseOf accepts a release path, or name@version, and gives the path.
func ReleaseOf(ref string) string {
	if name, version, ok := strings.Cut(ref, "@"); ok {
		return "release/" + name + "/" + version
	}
	return ref
}
