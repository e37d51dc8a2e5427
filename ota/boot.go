package ota

import (
	"errors"
	"fmt"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/store"
)

// loadCandidate puts a Candidate together from the store; the manifest is
// checked against its digest, the other blobs are not read.
func loadCandidate(blobs *store.Blobs, path, manifest, variant string, runtime []byte) (Candidate, error) {
	raw, err := blobs.Read(manifest, wire.MaxManifest)
	if err != nil {
		return Candidate{}, err
	}
	m, err := wire.DecodeManifest(raw)
	if err != nil {
		return Candidate{}, err
	}
	if m.Path() != path {
		return Candidate{}, fmt.Errorf("%w: manifest of %s where %s should be", wire.ErrMalformed, m.Path(), path)
	}
	for i := range m.Variants {
		v := &m.Variants[i]
		if v.Name != variant {
			continue
		}
		return Candidate{
			Release:  wire.ReleaseRef{Path: path, Digest: manifest, Variant: variant},
			Manifest: m, Variant: v, Runtime: runtime, blobs: blobs,
			ModelPath: blobs.Path(v.Model.Digest), GoldenPath: blobs.Path(v.Golden.Digest),
		}, nil
	}
	return Candidate{}, fmt.Errorf("%w: %s has no variant %q", wire.ErrMalformed, path, variant)
}

func refOf(r *store.Release) *wire.ReleaseRef {
	if r == nil {
		return nil
	}
	return &wire.ReleaseRef{Path: r.Path, Digest: r.Manifest, Variant: r.Variant}
}

// open finds out what can run and where the update stood.
func (u *Updater) open() {
	for _, p := range u.cfg.Store.Problems() {
		u.found("", "state folder: "+p.Error())
	}
	u.state = NewState()
	if raw := u.cfg.Store.Journal(); raw != nil {
		s, err := decodeState(raw)
		if err != nil {
			u.found("", err.Error()+"; the update begins anew")
		}
		u.state = s
	}
	u.active = u.runnable()
	if u.active != nil {
		u.raise(u.active.Manifest.Epoch) // in case the commit was cut short
	}
	slots := u.cfg.Store.Slots()
	if u.state.Step == wire.Idle && slots.Candidate != nil {
		slots.Candidate = nil
		u.saveSlots(slots)
	}
}

// runnable finds the release to run. The previous one takes over when the
// active one's files are damaged; what is damaged is fetched again as soon as
// a plan names it.
func (u *Updater) runnable() *Candidate {
	slots := u.cfg.Store.Slots()
	if slots.Active == nil && slots.Previous == nil {
		return nil
	}
	for i, r := range []*store.Release{slots.Active, slots.Previous} {
		if r == nil {
			continue
		}
		c, err := u.runs(r)
		if err != nil && !settled(err) {
			c, err = u.runs(r)
		}
		if err != nil {
			u.found(r.Path, "cannot run: "+err.Error())
			continue
		}
		if i == 1 {
			u.found(r.Path, "the previous release takes over")
			slots.Active, slots.Previous = slots.Previous, nil
			u.saveSlots(slots)
		}
		return &c
	}
	// Nothing runs. The slots keep naming the releases: should the fault have
	// been one of reading, the next start finds them.
	return nil
}

// settled says whether an error would be the same at a second try; one of
// reading need not be.
func settled(err error) bool {
	_, refused := errors.AsType[*Refusal](err)
	return refused || errors.Is(err, store.ErrMissing) || errors.Is(err, store.ErrCorrupt) || errors.Is(err, wire.ErrMalformed)
}

// runs checks everything a release needs to run.
func (u *Updater) runs(r *store.Release) (Candidate, error) {
	blobs := u.cfg.Store.Blobs()
	c, err := loadCandidate(blobs, r.Path, r.Manifest, r.Variant, r.Runtime)
	if err != nil {
		return Candidate{}, err
	}
	if err := blobs.Check(c.Variant.Model.Digest); err != nil {
		return Candidate{}, err
	}
	least, err := u.cfg.Anchor.Epoch()
	if err != nil {
		// Without its anchor the device still runs what it committed.
		u.cfg.Logger.Error("ota: ask the anchor for the epoch", "err", err)
		return c, nil
	}
	if c.Manifest.Epoch < least {
		return Candidate{}, refusef(wire.ReasonEpoch, "security epoch %d is below the device's %d", c.Manifest.Epoch, least)
	}
	return c, nil
}

func (u *Updater) saveSlots(s store.Slots) {
	if err := u.cfg.Store.SaveSlots(s); err != nil {
		u.found("", "slots: "+err.Error())
	}
}

// found keeps what New noticed for Run to tell.
func (u *Updater) found(release, msg string) {
	u.boot = append(u.boot, wire.Event{Kind: wire.EventStart, Release: release, Reason: wire.ReasonInternal, Message: clip(msg)})
}

// adopt makes the release in the active slot the one Active names, after a
// commit.
func (u *Updater) adopt() {
	r := u.cfg.Store.Slots().Active
	if r == nil {
		panic("internal error: ota: the active slot is empty after commit")
	}
	c, err := loadCandidate(u.cfg.Store.Blobs(), r.Path, r.Manifest, r.Variant, r.Runtime)
	if err != nil {
		// It runs already; the next start finds the damage and heals it.
		u.cfg.Logger.Error("ota: read back the committed release", "release", r.Path, "err", err)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.active = &c
}
