package ota

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/store"
)

const (
	// manifestTries bounds how often a manifest is fetched from the beginning:
	// its chunks cannot be checked one by one.
	manifestTries = 3
	// slack is what a default data budget allows beside the blobs.
	slack = 1 << 20
)

// doVerify brings the manifest and checks it against both signed roles, then
// refuses early what later steps would.
func (u *Updater) doVerify(ctx context.Context, t task) (Input, error) {
	raw, err := u.manifest(ctx, t.state)
	if err != nil {
		return Input{}, err
	}
	m, err := t.order.Verify(raw)
	if err != nil {
		return Input{}, err
	}
	if err := u.acceptable(m); err != nil {
		return Input{}, err
	}
	v, err := choose(m, u.cfg.Capabilities)
	if err != nil {
		return Input{}, err
	}
	return Input{Kind: Done, Variant: v.Name, Message: u.announce(v, t.state.Full)}, nil
}

// manifest returns the manifest's bytes, from disk or from the network.
func (u *Updater) manifest(ctx context.Context, s State) ([]byte, error) {
	ref, blobs := s.Target.Manifest, u.cfg.Store.Blobs()
	if ref.Size < 0 || ref.Size > wire.MaxManifest {
		return nil, refusef(wire.ReasonMalformed, "manifest of %d bytes, allowed %d", ref.Size, wire.MaxManifest)
	}
	if b, err := blobs.Read(ref.Digest, wire.MaxManifest); err == nil {
		return b, nil
	}
	u.budget.Store(fetch.NewBudget(s.Received+2*manifestTries*ref.Size+slack, s.Received))
	for try := 1; ; try++ {
		err := u.fetchOne(ctx, ref, 0, ref.Size)
		if err == nil {
			err = blobs.Put(ref.Digest)
		}
		if err == nil {
			return blobs.Read(ref.Digest, wire.MaxManifest)
		}
		if !errors.Is(err, store.ErrDigest) || try == manifestTries {
			return nil, err
		}
	}
}

// acceptable says whether this device may take the release at all.
func (u *Updater) acceptable(m *wire.Manifest) error {
	for _, r := range m.Requires {
		if !slices.Contains(u.cfg.Capabilities, r) {
			return refusef(wire.ReasonRequires, "release requires %q, which this device lacks", r)
		}
	}
	least, err := u.cfg.Anchor.Epoch()
	if err != nil {
		return fmt.Errorf("ota: ask the anchor for the epoch: %w", err)
	}
	if m.Epoch < least {
		return refusef(wire.ReasonEpoch, "release has security epoch %d, this device accepts %d and above", m.Epoch, least)
	}
	return nil
}

// choose picks the variant whose requirements this device meets; of several
// the one that requires most, being made for such a device, then the first.
func choose(m *wire.Manifest, capabilities []string) (*wire.Variant, error) {
	var best *wire.Variant
	missing := ""
	for i := range m.Variants {
		v := &m.Variants[i]
		lacks := slices.IndexFunc(v.Requires, func(r string) bool { return !slices.Contains(capabilities, r) })
		if lacks >= 0 {
			missing = v.Requires[lacks]
			continue
		}
		if best == nil || len(v.Requires) > len(best.Requires) {
			best = v
		}
	}
	if best == nil {
		return nil, refusef(wire.ReasonRequires, "no variant of %s runs here; this device lacks %q", m.Path(), missing)
	}
	return best, nil
}

// load reads back what verify found.
func (u *Updater) load(s State) (Candidate, error) {
	return loadCandidate(u.cfg.Store.Blobs(), s.Target.Release, s.Target.Manifest.Digest, s.Variant, s.Runtime)
}

// doFetch brings what the variant needs into .part files: a delta where one
// serves, else the model itself.
func (u *Updater) doFetch(ctx context.Context, t task) (Input, error) {
	c, err := u.load(t.state)
	if err != nil {
		return Input{}, err
	}
	v, done := c.Variant, Input{Kind: Done}
	refs, keep := []wire.BlobRef{v.Golden, v.Model}, []string{t.state.Target.Manifest.Digest, v.Golden.Digest, v.Model.Digest}
	room := u.missing(v.Golden) + u.missing(v.Model)
	d := u.delta(v, t.state.Full)
	if d != nil {
		refs[1], done.Delta = d.Blob, d.Blob.Digest
		keep = append(keep, d.Blob.Digest, d.Base)
		room += u.missing(d.Blob)
	}
	if err := u.makeRoom(room, keep...); err != nil {
		return Input{}, err
	}
	limit := c.Manifest.Budget.DataBytes
	if limit == 0 {
		limit = 2*(v.Golden.Size+v.Model.Size) + slack
	}
	if left, need := limit-t.state.Received, u.missing(v.Model); d == nil && len(v.Deltas) > 0 && need > left {
		return Input{}, refusef(wire.ReasonFetch, "no delta serves this device, and the model's %d bytes do not fit into the data budget: %d of %d are left", need, max(0, left), limit)
	}
	u.budget.Store(fetch.NewBudget(limit, t.state.Received))
	if err := u.fetchAll(ctx, refs); err != nil {
		if e, ok := errors.AsType[*spoiltError](err); ok && d != nil && e.digest == d.Blob.Digest {
			return u.noDelta(v, err), nil
		}
		return Input{}, err
	}
	return done, nil
}

// fetchAll brings the blobs that are not here.
func (u *Updater) fetchAll(ctx context.Context, refs []wire.BlobRef) error {
	var before, all int64
	for _, r := range refs {
		all += r.Size
	}
	for _, r := range refs {
		if !u.cfg.Store.Blobs().Has(r.Digest) {
			corrupt := u.cfg.Fetcher.Stats().Corrupt
			if err := u.fetchOne(ctx, r, before, all); err != nil {
				if errors.Is(err, fetch.ErrStalled) && u.cfg.Fetcher.Stats().Corrupt > corrupt {
					return &spoiltError{r.Digest, err}
				}
				return err
			}
		}
		before += r.Size
	}
	return nil
}

// missing is how many bytes of a blob are yet to come.
func (u *Updater) missing(r wire.BlobRef) int64 {
	if u.cfg.Store.Blobs().Has(r.Digest) {
		return 0
	}
	return max(0, r.Size-u.cfg.Store.Blobs().PartSize(r.Digest))
}

// fetchOne brings one blob into its .part; before and all are for the progress.
func (u *Updater) fetchOne(ctx context.Context, ref wire.BlobRef, before, all int64) error {
	part, err := u.cfg.Store.Blobs().Part(ref.Digest)
	if err != nil {
		return err
	}
	defer part.Close()
	return u.cfg.Fetcher.Fetch(ctx, ref, part, u.budget.Load(), func(done, _ int64) {
		u.size.Store(all)
		u.done.Store(before + done)
	})
}

// makeRoom frees space for need bytes, if it must at the cost of the previous
// release, which serves only when the active one is damaged.
func (u *Updater) makeRoom(need int64, keep ...string) error {
	st := u.cfg.Store
	if st.Blobs().Reserve(need) == nil {
		return nil
	}
	if _, err := st.GC(keep...); err != nil {
		return err
	}
	err := st.Blobs().Reserve(need)
	slots := st.Slots()
	if err == nil || slots.Previous == nil || slots.Active == nil {
		return err
	}
	u.cfg.Logger.Warn("ota: the previous release is given up for space", "release", slots.Previous.Path)
	slots.Previous = nil
	if err := st.SaveSlots(slots); err != nil {
		return err
	}
	if _, err := st.GC(keep...); err != nil {
		return err
	}
	return st.Blobs().Reserve(need)
}

// doAssemble makes blobs of the .part files: synced, and checked as a whole. A
// delta is applied first.
func (u *Updater) doAssemble(ctx context.Context, t task) (Input, error) {
	c, err := u.load(t.state)
	if err != nil {
		return Input{}, err
	}
	if t.state.Delta != "" && !u.cfg.Store.Blobs().Has(c.Variant.Model.Digest) {
		if err := u.rebuild(ctx, c.Variant, t.state.Delta); err != nil {
			if unfit(err) {
				return u.noDelta(c.Variant, err), nil
			}
			return Input{}, err
		}
	}
	for _, r := range []wire.BlobRef{c.Variant.Golden, c.Variant.Model} {
		if u.cfg.Store.Blobs().Has(r.Digest) {
			continue
		}
		if err := u.unchanged(r); err != nil {
			return Input{}, err
		}
		if err := u.cfg.Store.Blobs().Put(r.Digest); err != nil {
			return Input{}, err
		}
	}
	return Input{Kind: Done}, nil
}

// unchanged says whether the chunks of a .part still are what they were when
// they came. If not it is the disk's fault, not the release's, and the next try
// fetches those that are wrong; whole chunks that make a wrong blob are the
// release's.
func (u *Updater) unchanged(ref wire.BlobRef) error {
	part, err := u.cfg.Store.Blobs().Part(ref.Digest)
	if err != nil {
		return err
	}
	defer part.Close()
	buf := make([]byte, wire.ChunkSize)
	for i := range ref.Count() {
		b := buf[:ref.ChunkLen(i)]
		if n, err := part.ReadAt(b, int64(i)*wire.ChunkSize); err != nil && (err != io.EOF || n < len(b)) {
			return fmt.Errorf("ota: read back chunk %d of %s: %w", i, ref.Digest, err)
		}
		if !ref.CheckChunk(i, b) {
			return refusef(wire.ReasonFetch, "chunk %d of %s is not on the disk as it came", i, ref.Digest)
		}
	}
	return nil
}
