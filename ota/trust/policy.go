package trust

import (
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
)

// policy is what a device demands beyond The Update Framework's specification.
func policy() tufcore.Policy {
	return tufcore.Policy{
		MaxBytes:  wire.MaxMetadata,
		Strict:    true,
		Roles:     []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts},
		Root:      checkRoot,
		Timestamp: checkTimestamp,
		Targets:   func(role string, t *metadata.TargetsType) error { return checkDelegations(role, t.Delegations) },
	}
}

// checkRoot says whether all roles are there with keys enough to be satisfied.
func checkRoot(r *metadata.RootType) error {
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		k := r.Roles[role]
		if k == nil || k.Threshold < 1 || len(k.KeyIDs) < k.Threshold {
			return refuse(ErrMalformed, "root version %d names too few keys for %s", r.Version, role)
		}
	}
	return nil
}

// checkTimestamp bounds the time that a timestamp tells by the end of the root,
// which is signed offline.
func checkTimestamp(h tufcore.Head, end time.Time) error {
	if h.Version > end.Unix() {
		return refuse(ErrVersionSkip, "timestamp says it is %s, but its root ends %s; the hub's clock is wrong, or its key was stolen (root must replace it)",
			tufcore.Day(time.Unix(h.Version, 0)), tufcore.Day(end))
	}
	return nil
}

// checkDelegations allows exactly the two delegations of this protocol, from
// targets, and none from others. Any more could make two roles answer for one
// path, and then the order of delegations would decide who is believed.
func checkDelegations(role string, d *metadata.Delegations) error {
	if role != wire.RoleTargets {
		if d != nil {
			return refuse(ErrMalformed, "%s delegates further, which this protocol does not know", role)
		}
		return nil
	}
	paths := map[string]string{wire.RoleModels: "release/*/*", wire.RoleRollouts: "rollout/*"}
	if d == nil || d.SuccinctRoles != nil || len(d.Roles) != len(paths) {
		return refuse(ErrMalformed, "targets does not delegate to exactly models and rollouts; it may be of a newer drover")
	}
	for _, r := range d.Roles {
		p, ok := paths[r.Name]
		if !ok || !r.Terminating || len(r.PathHashPrefixes) > 0 || !slices.Equal(r.Paths, []string{p}) {
			return refuse(ErrMalformed, "targets delegates %q with paths %q, terminating %v; expected models for release/*/* and rollouts for rollout/*, both terminating",
				r.Name, r.Paths, r.Terminating)
		}
		delete(paths, r.Name) // a name that stands twice is refused here
	}
	return nil
}
