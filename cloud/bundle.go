package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/ota/bundle"
)

// DefaultCarry is how long a bundle is good where nobody says.
const DefaultCarry = 3 * 24 * time.Hour

// What making a bundle may answer.
var (
	// ErrNoPlan says that no open plan gives the release to anybody, so that a
	// device would have no reason to take it out of a bundle.
	ErrNoPlan = errors.New("cloud: no open rollout gives out the release")
	// ErrNoDelta says that the release has no delta from a base.
	ErrNoDelta = errors.New("cloud: the release has no delta from that one")
)

// BundleOptions say what goes into a bundle.
type BundleOptions struct {
	Release string // path
	// Base is the path of the release that the devices run: the bundle then has
	// the deltas from it in place of the models, and is of no use to others.
	Base string
	// Valid is how long the timestamp holds, 0: as long as the published one.
	// The other metadata may end before.
	Valid time.Duration
	Now   time.Time // when the bundle is made
}

// Bundle is a bundle that can be written.
type Bundle struct {
	Head bundle.Head `json:"head"`
	// Plans are those that name the release.
	Plans   []wire.Plan `json:"plans"`
	Expires time.Time   `json:"expires"` // devices refuse it from then on
	Blobs   int         `json:"blobs"`
	content bundle.Content
}

// Bundle gathers what a device needs to take a release without a broker: the
// metadata, brought up to date, and the blobs. Where the hub's keys are not in
// the fleet folder, the metadata is what was published last. ErrNoPlan,
// ErrNoDelta.
func (f *Fleet) Bundle(ctx context.Context, o BundleOptions) (*Bundle, error) {
	rel, err := f.Registry.Release(ctx, o.Release)
	if err != nil {
		return nil, err
	}
	if rel.State != registry.ReleaseActive {
		return nil, fmt.Errorf("cloud: release %s is %s", rel.Path, rel.State)
	}
	m, err := f.Manifest(ctx, rel.Path)
	if err != nil {
		return nil, err
	}
	refs, err := f.bundled(ctx, m, o.Base)
	if err != nil {
		return nil, err
	}
	p, plans, err := f.carried(ctx, o)
	if err != nil {
		return nil, err
	}
	if plans = slices.DeleteFunc(plans, func(p wire.Plan) bool { return p.Release != rel.Path }); len(plans) == 0 {
		return nil, fmt.Errorf("%w %s", ErrNoPlan, rel.Path)
	}
	b := &Bundle{Plans: plans, Expires: p.Expires, Blobs: 1 + len(refs)}
	b.content = bundle.Content{
		Head: bundle.Head{
			V: wire.Version, Fleet: f.Settings.Fleet, Release: rel.Path, Manifest: rel.Manifest,
			Created: o.Now.Unix(), Expires: p.Expires.Unix(),
		},
		Current: p.Current,
	}
	for _, plan := range plans {
		b.content.Head.Plans = append(b.content.Head.Plans, plan.ID)
	}
	for _, md := range p.Retained {
		b.content.Metadata = append(b.content.Metadata, bundle.Metadata(md))
	}
	manifest, err := f.Registry.Blob(ctx, rel.Manifest)
	if err != nil {
		return nil, err
	}
	refs = slices.Insert(refs, 0, wire.BlobRef{Digest: manifest.Digest, Size: manifest.Size})
	for _, r := range refs {
		b.content.Blobs = append(b.content.Blobs, bundle.Blob{Digest: r.Digest, Size: r.Size, Open: func() (io.ReadCloser, error) {
			rd, _, err := f.Registry.OpenBlob(ctx, r.Digest)
			return rd, err
		}})
	}
	b.Head, err = b.content.Complete()
	return b, err
}

// WriteTo writes the file; its size is Head.Size.
func (b *Bundle) WriteTo(w io.Writer) (int64, error) {
	c := counter{w: w}
	err := bundle.Write(&c, &b.content)
	return c.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// bundled are the blobs of a release but its manifest, smallest kind first:
// golden inputs, deltas, models.
func (f *Fleet) bundled(ctx context.Context, m *wire.Manifest, base string) ([]wire.BlobRef, error) {
	var golden, deltas, models []wire.BlobRef
	var from *wire.Manifest
	if base != "" {
		var err error
		if from, err = f.Manifest(ctx, base); err != nil {
			return nil, err
		}
	}
	for i := range m.Variants {
		v := &m.Variants[i]
		golden = append(golden, v.Golden)
		for _, d := range v.Deltas {
			if from == nil || holds(from, d.Base) {
				deltas = append(deltas, d.Blob)
			}
		}
		if from == nil {
			models = append(models, v.Model)
		}
	}
	if from != nil && len(deltas) == 0 {
		return nil, fmt.Errorf("%w: %s from %s", ErrNoDelta, m.Path(), base)
	}
	var out []wire.BlobRef
	for _, r := range slices.Concat(golden, deltas, models) {
		if !slices.ContainsFunc(out, func(o wire.BlobRef) bool { return o.Digest == r.Digest }) {
			out = append(out, r)
		}
	}
	return out, nil
}

func holds(m *wire.Manifest, model string) bool {
	return slices.ContainsFunc(m.Variants, func(v wire.Variant) bool { return v.Model.Digest == model })
}
