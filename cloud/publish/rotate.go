package publish

import (
	"context"
	"crypto"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// RotateRoot makes the next version of root. old are the present root's
// signers; next holds, for root, targets, snapshot and timestamp, the signers
// that replace those of today, and may leave out what stays. A role that stays
// keeps its threshold. The new root is signed by the old and the new keys. Roles
// whose keys were replaced must be signed again (Delegate, Publish) before
// devices take updates.
func RotateRoot(ctx context.Context, repo Repo, old []crypto.Signer, next Keys, thresholds map[string]int, now time.Time) error {
	var root metadata.Metadata[metadata.RootType]
	if _, err := latest(ctx, repo, wire.RoleRoot, &root); err != nil {
		return err
	}
	before := root
	signers := slices.Clone(old)
	roles := map[string]*metadata.Role{}
	for role, r := range root.Signed.Roles {
		roles[role] = r
	}
	root.Signed.Roles = roles
	for role, keys := range next {
		if roles[role] == nil {
			return fail(ErrInvalid, "root holds no keys of %s; those of models and rollouts are set by Delegate", role)
		}
		if len(keys) < threshold(thresholds, role) {
			return fail(ErrKeys, "%d keys for %s, its threshold is %d", len(keys), role, threshold(thresholds, role))
		}
		if err := setRootKeys(&root.Signed, role, keys, thresholds); err != nil {
			return err
		}
		if role == wire.RoleRoot {
			signers = append(signers, keys...)
		}
	}
	dropUnused(&root.Signed)
	root.Signed.Version++
	root.Signed.Expires = ends(wire.RoleRoot, now)
	raw, err := sign(wire.RoleRoot, &root, signers)
	if err != nil {
		return err
	}
	for _, by := range []*metadata.Metadata[metadata.RootType]{&before, &root} {
		if err := by.VerifyDelegate(wire.RoleRoot, &root); err != nil {
			return fail(ErrKeys, "root version %d by the keys of version %d: %v", root.Signed.Version, by.Signed.Version, err)
		}
	}
	if err := repo.Append(ctx, Metadata{wire.RoleRoot, root.Signed.Version, raw}); err != nil {
		return fail(err, "store root version %d", root.Signed.Version)
	}
	return nil
}

// dropUnused removes keys that no role names any more.
func dropUnused(root *metadata.RootType) {
	keys := map[string]*metadata.Key{}
	for _, r := range root.Roles {
		for _, id := range r.KeyIDs {
			keys[id] = root.Keys[id]
		}
	}
	root.Keys = keys
}

// Delegate makes the next version of targets with the given keys of models and
// rollouts, both, of which only the public halves are used. It also serves to
// sign targets again when its own keys were replaced. Roles whose keys were
// replaced must be signed again before the next Publish.
func Delegate(ctx context.Context, repo Repo, targets []crypto.Signer, delegated Keys, thresholds map[string]int, now time.Time) error {
	if err := delegated.check([]string{wire.RoleModels, wire.RoleRollouts}, thresholds); err != nil {
		return err
	}
	var root metadata.Metadata[metadata.RootType]
	if _, err := latest(ctx, repo, wire.RoleRoot, &root); err != nil {
		return err
	}
	var m metadata.Metadata[metadata.TargetsType]
	if _, err := latest(ctx, repo, wire.RoleTargets, &m); err != nil {
		return err
	}
	if err := setDelegations(&m.Signed, delegated, thresholds); err != nil {
		return err
	}
	m.Signed.Version++
	m.Signed.Expires = ends(wire.RoleTargets, now)
	raw, err := sign(wire.RoleTargets, &m, targets)
	if err != nil {
		return err
	}
	if err := root.VerifyDelegate(wire.RoleTargets, &m); err != nil {
		return fail(ErrKeys, "targets: %v", err)
	}
	if err := repo.Append(ctx, Metadata{wire.RoleTargets, m.Signed.Version, raw}); err != nil {
		return fail(err, "store targets version %d", m.Signed.Version)
	}
	return nil
}

// Resign makes the next version of models or rollouts with the same content:
// after its keys were replaced, or before it expires.
func Resign(ctx context.Context, repo Repo, role string, signers []crypto.Signer, now time.Time) error {
	if role != wire.RoleModels && role != wire.RoleRollouts {
		return fail(ErrInvalid, "%s is not signed again by itself", role)
	}
	return editTargets(ctx, repo, role, signers, now, func(*metadata.TargetsType) (bool, error) { return true, nil })
}
