package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/ota/delta"
)

const (
	// deltaBases is how many of the last releases a delta is made from when
	// nobody says which.
	deltaBases = 3
	// maxDeltaModel bounds models for which deltas are made unasked: it takes
	// seconds for every few megabytes.
	maxDeltaModel = 64 << 20
	// worthwhile is the least part of the model that a delta must save, in
	// percent: one that saves less costs the device memory and time for little.
	worthwhile = 10
)

// addDeltas makes deltas to a variant from what devices may hold and puts those
// that are worth it into the variant and the registry.
func (f *Fleet) addDeltas(ctx context.Context, v *wire.Variant, model []byte, self registry.Model, o *ReleaseOptions) error {
	if o.NoDelta {
		return nil
	}
	bases, err := f.deltaBases(ctx, v, self, o.DeltaFrom)
	if err != nil {
		return err
	}
	for _, b := range bases {
		if err := ctx.Err(); err != nil {
			return err
		}
		base, err := f.Registry.ReadBlob(ctx, b.Digest, wire.MaxBlob)
		if err != nil {
			return fmt.Errorf("cloud: base of a delta: %w", err)
		}
		d, err := makeDelta(base, model)
		if err != nil {
			return fmt.Errorf("cloud: delta of %s: %w", self.Ref(), err)
		}
		if int64(len(d)) > v.Model.Size*(100-worthwhile)/100 {
			continue
		}
		if _, err := f.Registry.PutBytes(ctx, d); err != nil {
			return err
		}
		v.Deltas = append(v.Deltas, wire.Delta{Base: b.Digest, Size: b.Size, Blob: wire.NewBlobRef(d)})
	}
	return nil
}

// makeDelta makes a delta and applies it as a device will.
func makeDelta(base, model []byte) ([]byte, error) {
	d, err := delta.Make(base, model)
	if err != nil {
		return nil, err
	}
	var again bytes.Buffer
	if err := delta.Apply(base, bytes.NewReader(d), int64(len(d)), &again); err != nil {
		return nil, err
	}
	if !bytes.Equal(again.Bytes(), model) {
		panic("internal error: cloud: a delta gives something else than it was made for")
	}
	return d, nil
}

// deltaBases are the models that releases gave to devices: the ones named, or
// the last few of the same name. Each stands once; the model itself does not.
func (f *Fleet) deltaBases(ctx context.Context, v *wire.Variant, self registry.Model, named []string) ([]wire.BlobRef, error) {
	var paths []string
	for _, ref := range named {
		m, err := f.Registry.ModelByRef(ctx, ref)
		if err != nil {
			return nil, err
		}
		paths = append(paths, ReleaseOf(m.Ref()))
	}
	limit := wire.MaxDeltas
	if len(named) == 0 {
		if v.Model.Size > maxDeltaModel {
			return nil, nil
		}
		rels, err := f.Registry.Releases(ctx, self.Name)
		if err != nil {
			return nil, err
		}
		for _, r := range rels { // newest first
			paths = append(paths, r.Path)
		}
		limit = deltaBases
	}
	var out []wire.BlobRef
	seen := map[string]bool{v.Model.Digest: true}
	for _, p := range paths {
		m, err := f.Manifest(ctx, p)
		if errors.Is(err, registry.ErrNotFound) && len(named) > 0 {
			return nil, fmt.Errorf("cloud: %s was never released, so no device holds it: %w", p, err)
		}
		if errors.Is(err, wire.ErrMalformed) && len(named) == 0 {
			continue // signed by other means; no device runs what none can read
		}
		if err != nil {
			return nil, err
		}
		for i := range m.Variants {
			b := &m.Variants[i]
			if b.Name != v.Name || seen[b.Model.Digest] || len(out) == limit || len(named) == 0 && b.Model.Size > maxDeltaModel {
				continue
			}
			seen[b.Model.Digest] = true
			out = append(out, b.Model)
		}
	}
	return out, nil
}
