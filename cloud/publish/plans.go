package publish

import (
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// SetPlans makes plans the only ones that are open: a new version of rollouts.
// Each must name a release that models signed (ErrUnsigned); length and digest
// are taken from there. Nothing reaches devices before Publish.
func SetPlans(ctx context.Context, repo Repo, rollouts []crypto.Signer, plans []wire.Plan, now time.Time) error {
	if len(plans) > wire.MaxPending {
		return fail(ErrTooLarge, "%d plans, at most %d may be open; close plans that are done", len(plans), wire.MaxPending)
	}
	var models metadata.Metadata[metadata.TargetsType]
	if _, err := latest(ctx, repo, wire.RoleModels, &models); err != nil {
		return err
	}
	targets := map[string]*metadata.TargetFiles{}
	serials := map[int64]string{}
	for _, p := range plans {
		if err := p.Check(); err != nil {
			return fail(ErrInvalid, "plan: %v", err)
		}
		release := models.Signed.Targets[p.Release]
		if release == nil {
			return fail(ErrUnsigned, "plan %q names %s", p.ID, p.Release)
		}
		path := wire.RolloutPath(p.ID)
		if targets[path] != nil {
			return fail(ErrInvalid, "plan %q stands twice", p.ID)
		}
		if other, ok := serials[p.Serial]; ok {
			return fail(ErrInvalid, "plans %q and %q have the same serial %d", other, p.ID, p.Serial)
		}
		serials[p.Serial] = p.ID
		custom := json.RawMessage(wire.Encode(p))
		targets[path] = &metadata.TargetFiles{Length: release.Length, Hashes: release.Hashes, Custom: &custom}
	}
	return editTargets(ctx, repo, wire.RoleRollouts, rollouts, now, func(t *metadata.TargetsType) (bool, error) {
		t.Targets = targets
		return true, nil
	})
}

// Plans are the open plans, by serial.
func Plans(ctx context.Context, repo Repo) ([]wire.Plan, error) {
	var m metadata.Metadata[metadata.TargetsType]
	if _, err := latest(ctx, repo, wire.RoleRollouts, &m); err != nil {
		return nil, err
	}
	var plans []wire.Plan
	for path, t := range m.Signed.Targets {
		if !strings.HasPrefix(path, wire.RolloutPath("")) || t.Custom == nil {
			continue
		}
		p, err := wire.DecodePlan(*t.Custom)
		if err != nil {
			return nil, fail(ErrInvalid, "%s in the repository: %v", path, err)
		}
		plans = append(plans, *p)
	}
	slices.SortFunc(plans, func(a, b wire.Plan) int { return int(min(max(a.Serial-b.Serial, -1), 1)) })
	return plans, nil
}

func refOf(t *metadata.TargetFiles) wire.BlobRef {
	return wire.BlobRef{Digest: hex.EncodeToString(t.Hashes["sha256"]), Size: t.Length}
}
