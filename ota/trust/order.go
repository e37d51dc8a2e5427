package trust

import (
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
)

// Order is a plan that rollouts signed and whose release models signed. Only
// Select makes one. It does not change and may be shared.
type Order struct {
	plan wire.Plan
	ref  wire.BlobRef
}

// Plan is the plan as signed.
func (o *Order) Plan() wire.Plan { return o.plan }

// Path is the target path of the release.
func (o *Order) Path() string { return o.plan.Release }

// Ref is digest and length of the release's manifest; it has no chunk digests,
// so a manifest of more than one chunk is checked as a whole.
func (o *Order) Ref() wire.BlobRef { return o.ref }

// Verify turns the bytes of a manifest into a release. It answers ErrDigest or
// ErrMalformed. The manifest is copied out of b.
func (o *Order) Verify(b []byte) (*Release, error) {
	if int64(len(b)) != o.ref.Size {
		return nil, refuse(ErrDigest, "manifest of %s has %d bytes, signed were %d; a transfer may have been cut short", o.Path(), len(b), o.ref.Size)
	}
	if d := tufcore.Digest(b); d != o.ref.Digest {
		return nil, refuse(ErrDigest, "manifest of %s has SHA-256 %s, signed was %s; it was damaged or exchanged on its way", o.Path(), d, o.ref.Digest)
	}
	m, err := wire.DecodeManifest(b)
	if err != nil {
		return nil, refuse(ErrMalformed, "manifest of %s: %v; a newer drover may have written it", o.Path(), err)
	}
	if m.Path() != o.Path() {
		return nil, refuse(ErrMalformed, "manifest signed as %s says it is %s; the wrong file was signed", o.Path(), m.Path())
	}
	return &Release{order: o, manifest: m}, nil
}

// Release is a verified release. Only Order.Verify makes one.
type Release struct {
	order    *Order
	manifest *wire.Manifest
}

// Manifest is the manifest; it is shared and must not be changed.
func (r *Release) Manifest() *wire.Manifest { return r.manifest }

// Order is what asked for the release.
func (r *Release) Order() *Order { return r.order }

// Select answers which release a device should run: the plan with the highest
// serial that means it and whose release models signed with the same length
// and digest. It answers nil, nil when there is none, ErrExpired when the
// metadata is stale, and ErrSignature or ErrDigest when plans mean the device
// but none is backed by models.
func (c *Client) Select(device string, labels map[string]string) (*Order, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.world == nil {
		return nil, nil
	}
	if role, at := c.world.expiry(); c.now().After(at) {
		return nil, tufcore.Expired(role, c.versionOf(role), at, c.now())
	}
	var refused error
	for _, p := range c.world.plans {
		if !p.plan.Selector.Matches(device, labels) {
			continue
		}
		signed, ok := c.world.releases[p.plan.Release]
		switch {
		case !ok && refused == nil:
			refused = refuse(ErrSignature, "plan %q names %s, which models did not sign; it was withdrawn, or the hub's key was stolen", p.plan.ID, p.plan.Release)
		case !ok:
		case signed.Digest == p.ref.Digest && signed.Size == p.ref.Size:
			return &Order{plan: p.plan, ref: p.ref}, nil
		case refused == nil:
			refused = refuse(ErrDigest, "plan %q names %s with SHA-256 %.16s…, models signed %.16s…; the hub's key may be stolen", p.plan.ID, p.plan.Release, p.ref.Digest, signed.Digest)
		}
	}
	return nil, refused
}
