package publish

import (
	"context"
	"crypto"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// AddRelease signs a manifest as a release: a new version of models with the
// target release/{model}/{version}, which it returns. A release is never
// replaced by other bytes (ErrExists); the same bytes again change nothing.
func AddRelease(ctx context.Context, repo Repo, models []crypto.Signer, manifest []byte, now time.Time) (path string, err error) {
	m, err := wire.DecodeManifest(manifest)
	if err != nil {
		return "", fail(ErrInvalid, "release: %v", err)
	}
	ref := wire.NewBlobRef(manifest)
	err = editTargets(ctx, repo, wire.RoleModels, models, now, func(t *metadata.TargetsType) (bool, error) {
		target := targetOf(manifest)
		if old := t.Targets[m.Path()]; old != nil {
			if old.Equal(*target) {
				return false, nil
			}
			return false, fail(ErrExists, "%s is signed with other bytes than SHA-256 %.16s…; a release never changes, give it the next version", m.Path(), ref.Digest)
		}
		t.Targets[m.Path()] = target
		return true, nil
	})
	return m.Path(), err
}

// RetireReleases takes releases out of models: no plan can name them any more.
// Devices that run them go on. Plans must have been closed before (ErrExists).
func RetireReleases(ctx context.Context, repo Repo, models []crypto.Signer, paths []string, now time.Time) error {
	plans, err := Plans(ctx, repo)
	if err != nil {
		return err
	}
	for _, p := range plans {
		if slices.Contains(paths, p.Release) {
			return fail(ErrExists, "retire %s: plan %q still names it; close that first", p.Release, p.ID)
		}
	}
	return editTargets(ctx, repo, wire.RoleModels, models, now, func(t *metadata.TargetsType) (bool, error) {
		for _, p := range paths {
			if t.Targets[p] == nil {
				return false, fail(ErrUnsigned, "retire %s", p)
			}
			delete(t.Targets, p)
		}
		return len(paths) > 0, nil
	})
}

// Releases are the signed releases by path, with length and digest of their
// manifests.
func Releases(ctx context.Context, repo Repo) (map[string]wire.BlobRef, error) {
	var m metadata.Metadata[metadata.TargetsType]
	if _, err := latest(ctx, repo, wire.RoleModels, &m); err != nil {
		return nil, err
	}
	out := map[string]wire.BlobRef{}
	for path, t := range m.Signed.Targets {
		out[path] = refOf(t)
	}
	return out, nil
}

// editTargets makes a new version of a delegated role, unless edit says that
// nothing changed.
func editTargets(ctx context.Context, repo Repo, role string, signers []crypto.Signer, now time.Time, edit func(*metadata.TargetsType) (changed bool, err error)) error {
	var m metadata.Metadata[metadata.TargetsType]
	if _, err := latest(ctx, repo, role, &m); err != nil {
		return err
	}
	changed, err := edit(&m.Signed)
	if err != nil || !changed {
		return err
	}
	m.Signed.Version++
	m.Signed.Expires = ends(role, now)
	raw, err := sign(role, &m, signers)
	if err != nil {
		return err
	}
	if err := checkDelegate(ctx, repo, role, &m); err != nil {
		return err
	}
	if err := repo.Append(ctx, Metadata{role, m.Signed.Version, raw}); err != nil {
		return fail(err, "store %s version %d", role, m.Signed.Version)
	}
	return nil
}

// checkDelegate says whether the fleet's targets accept the signatures: a wrong
// key is noticed here and not at the next publication.
func checkDelegate(ctx context.Context, repo Repo, role string, m *metadata.Metadata[metadata.TargetsType]) error {
	var targets metadata.Metadata[metadata.TargetsType]
	if _, err := latest(ctx, repo, wire.RoleTargets, &targets); err != nil {
		return err
	}
	if err := targets.VerifyDelegate(role, m); err != nil {
		return fail(ErrKeys, "%s: %v; these are not the keys of this fleet, or too few of them", role, err)
	}
	return nil
}

func targetOf(b []byte) *metadata.TargetFiles {
	m := metaOf(b, 1)
	return &metadata.TargetFiles{Length: m.Length, Hashes: m.Hashes}
}
