package ota

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/delta"
	"github.com/droverhq/drover/ota/store"
)

// errUnfit is wrapped by errors after which a delta is of no use.
var errUnfit = errors.New("ota: delta is of no use here")

// unfit says whether an error lies with the delta or its base, not with the
// device, so that the full model may still do.
func unfit(err error) bool {
	return slices.ContainsFunc([]error{
		errUnfit, store.ErrDigest, store.ErrMissing, store.ErrCorrupt, delta.ErrFormat, delta.ErrBase, delta.ErrTarget,
	}, func(kind error) bool { return errors.Is(err, kind) })
}

// spoiltError is a fetch that stalled although chunks came: they were not the
// signed ones.
type spoiltError struct {
	digest string
	err    error
}

func (e *spoiltError) Error() string { return e.err.Error() + "; those that came were wrong" }
func (e *spoiltError) Unwrap() error { return e.err }

// delta picks the delta that leaves least to fetch; nil where none starts from
// a model this device holds. What is here of the model itself does not count: a
// .part may have holes.
func (u *Updater) delta(v *wire.Variant, full bool) *wire.Delta {
	var best *wire.Delta
	if full || u.cfg.Store.Blobs().Has(v.Model.Digest) {
		return nil
	}
	for i := range v.Deltas {
		d := &v.Deltas[i]
		if u.cfg.Store.Blobs().Has(d.Base) && (best == nil || u.missing(d.Blob) < u.missing(best.Blob)) {
			best = d
		}
	}
	return best
}

// announce says what will be fetched, where there is a choice.
func (u *Updater) announce(v *wire.Variant, full bool) string {
	switch d := u.delta(v, full); {
	case full:
		return fmt.Sprintf("the full model of %d bytes is needed: a delta failed before", v.Model.Size)
	case d != nil:
		return fmt.Sprintf("a delta of %d bytes stands for the model of %d", d.Blob.Size, v.Model.Size)
	case len(v.Deltas) > 0 && u.missing(v.Model) > 0:
		return fmt.Sprintf("none of %d deltas starts from a model that is here: the full one of %d bytes is needed", len(v.Deltas), v.Model.Size)
	}
	return ""
}

// noDelta is the way to the full model, and says why.
func (u *Updater) noDelta(v *wire.Variant, why error) Input {
	u.cfg.Logger.Warn("ota: a delta does not give the model", "err", why)
	return Input{Kind: NoDelta, Message: fmt.Sprintf("the full model of %d bytes is needed: %v", v.Model.Size, why)}
}

// rebuild makes the model of a base that is here and a delta that has arrived.
// It holds the base in memory and little more. Nothing is the model before its
// digest was checked.
func (u *Updater) rebuild(ctx context.Context, v *wire.Variant, digest string) error {
	blobs := u.cfg.Store.Blobs()
	i := slices.IndexFunc(v.Deltas, func(d wire.Delta) bool { return d.Blob.Digest == digest })
	if i < 0 {
		return fmt.Errorf("%w: the manifest has no delta %s", errUnfit, digest)
	}
	d := v.Deltas[i]
	if err := blobs.Put(d.Blob.Digest); err != nil {
		return fmt.Errorf("ota: delta: %w", err)
	}
	base, err := blobs.Read(d.Base, d.Size)
	if err != nil {
		return fmt.Errorf("ota: base of the delta: %w", err)
	}
	f, err := blobs.Open(d.Blob.Digest)
	if err != nil {
		return fmt.Errorf("ota: delta: %w", err)
	}
	defer f.Close()
	part, err := blobs.Part(v.Model.Digest)
	if err != nil {
		return err
	}
	defer part.Close()
	if err := part.Truncate(0); err != nil {
		return err
	}
	if err := delta.Apply(base, f, d.Blob.Size, &partWriter{ctx: ctx, part: part, limit: v.Model.Size}); err != nil {
		return errors.Join(fmt.Errorf("ota: apply delta: %w", err), blobs.DropPart(v.Model.Digest))
	}
	return blobs.Put(v.Model.Digest)
}

// partWriter fills a .part from its beginning. It lives for one call of
// rebuild, which is why it may hold the context.
type partWriter struct {
	ctx       context.Context //nolint:containedctx // ends with the call
	part      *store.Part
	at, limit int64
}

// Write refuses what goes beyond the signed size.
func (w *partWriter) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > w.limit-w.at {
		return 0, fmt.Errorf("%w: it gives more than the %d bytes of the model", errUnfit, w.limit)
	}
	n, err := w.part.WriteAt(p, w.at)
	w.at += int64(n)
	return n, err
}
