package publish

import (
	"context"
	"crypto"
	"maps"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// fleetField stands in root beside the fields of the format, for people.
const fleetField = "x-drover-fleet"

// InitOptions describe a new fleet.
type InitOptions struct {
	Fleet      string
	Now        time.Time
	Thresholds map[string]int           // per role, 1 where absent
	Lives      map[string]time.Duration // per role, Life where absent; for the first version only
}

// Init makes a fleet: root, the two delegations, empty lists of releases and
// plans, and the first publication. The repo must be empty (ErrExists).
func Init(ctx context.Context, repo Repo, keys Keys, o InitOptions) (*Publication, error) {
	if !wire.ValidName(o.Fleet) {
		return nil, fail(ErrInvalid, "fleet name %q; wanted 1 to 63 of a–z, 0–9 and hyphen", o.Fleet)
	}
	if err := keys.check(allRoles(), o.Thresholds); err != nil {
		return nil, err
	}
	if _, version, err := repo.Latest(ctx, wire.RoleRoot); err != nil {
		return nil, fail(err, "read root")
	} else if version != 0 {
		return nil, fail(ErrExists, "a fleet with root version %d", version)
	}
	end := func(role string) time.Time {
		if life := o.Lives[role]; life != 0 {
			return o.Now.Add(life).UTC().Truncate(time.Second)
		}
		return ends(role, o.Now)
	}
	ms, err := firstMetadata(keys, o, end)
	if err != nil {
		return nil, err
	}
	p, fresh, err := compose(ctx, with(repo, ms), keys[metadata.SNAPSHOT], keys[metadata.TIMESTAMP], o.Now, end)
	if err != nil {
		return nil, err
	}
	if err := repo.Append(ctx, append(ms, fresh...)...); err != nil {
		return nil, fail(err, "store the first metadata")
	}
	return p, nil
}

// firstMetadata makes version 1 of all roles but snapshot and timestamp.
func firstMetadata(keys Keys, o InitOptions, end func(string) time.Time) ([]Metadata, error) {
	root := metadata.Root(end(wire.RoleRoot))
	root.Signed.UnrecognizedFields = map[string]any{fleetField: o.Fleet}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		if err := setRootKeys(&root.Signed, role, keys[role], o.Thresholds); err != nil {
			return nil, err
		}
	}
	targets := metadata.Targets(end(wire.RoleTargets))
	if err := setDelegations(&targets.Signed, keys, o.Thresholds); err != nil {
		return nil, err
	}
	var ms []Metadata
	raw, err := sign(wire.RoleRoot, root, keys[wire.RoleRoot])
	if err != nil {
		return nil, err
	}
	ms = append(ms, Metadata{wire.RoleRoot, 1, raw})
	for _, t := range []struct {
		role string
		meta *metadata.Metadata[metadata.TargetsType]
	}{
		{wire.RoleTargets, targets},
		{wire.RoleModels, metadata.Targets(end(wire.RoleModels))},
		{wire.RoleRollouts, metadata.Targets(end(wire.RoleRollouts))},
	} {
		raw, err := sign(t.role, t.meta, keys[t.role])
		if err != nil {
			return nil, err
		}
		ms = append(ms, Metadata{t.role, 1, raw})
	}
	return ms, nil
}

// setRootKeys makes signers the only keys of a role in root.
func setRootKeys(root *metadata.RootType, role string, signers []crypto.Signer, thresholds map[string]int) error {
	keys, ids, err := tufKeys(role, signers)
	if err != nil {
		return err
	}
	maps.Copy(root.Keys, keys)
	root.Roles[role] = &metadata.Role{KeyIDs: ids, Threshold: threshold(thresholds, role)}
	return nil
}

// setDelegations makes the two delegations of the protocol with keys of models
// and rollouts.
func setDelegations(t *metadata.TargetsType, keys Keys, thresholds map[string]int) error {
	d := &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, r := range []struct{ role, path string }{{wire.RoleModels, "release/*/*"}, {wire.RoleRollouts, "rollout/*"}} {
		ks, ids, err := tufKeys(r.role, keys[r.role])
		if err != nil {
			return err
		}
		maps.Copy(d.Keys, ks)
		d.Roles = append(d.Roles, metadata.DelegatedRole{
			Name: r.role, KeyIDs: ids, Threshold: threshold(thresholds, r.role), Terminating: true, Paths: []string{r.path},
		})
	}
	t.Delegations = d
	return nil
}
