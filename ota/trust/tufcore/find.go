package tufcore

import (
	"fmt"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// MaxVisits bounds how many roles are asked for one target.
const MaxVisits = 32

// Find looks for a target as the specification says: in targets, then in what
// it delegates to, in order and depth first, a terminating delegation ending
// the search. load brings a role: it calls UpdateTargets with exactly this role
// and delegator, also for a role that an earlier search reached by another way.
// A role that the snapshot does not list is refused before load is called.
func (v *Verifier) Find(path string, load func(role, delegator string) error) (*metadata.TargetFiles, error) {
	type step struct{ role, delegator string }
	visit := []step{{metadata.TARGETS, metadata.ROOT}}
	visited := map[string]bool{}
	for len(visit) > 0 && len(visited) < MaxVisits {
		s := visit[len(visit)-1]
		visit = visit[:len(visit)-1]
		if visited[s.role] {
			continue
		}
		visited[s.role] = true
		t, err := v.reach(s.role, s.delegator, load)
		if err != nil {
			return nil, err
		}
		if f := t.Targets[path]; f != nil {
			return f, nil
		}
		if t.Delegations == nil {
			continue
		}
		var next []step
		for _, r := range t.Delegations.GetRolesForTarget(path) {
			next = append(next, step{r.Name, s.role})
			if r.Terminating {
				visit = nil
				break
			}
		}
		slices.Reverse(next)
		visit = append(visit, next...)
	}
	return nil, fmt.Errorf("trust: target %q: %w", path, ErrNotFound)
}

func (v *Verifier) reach(role, delegator string, load func(role, delegator string) error) (*metadata.TargetsType, error) {
	if role == metadata.TARGETS {
		if t := v.Targets(role); t != nil {
			return t, nil
		}
	}
	if _, ok := v.snapshot.Of(role); !ok {
		return nil, Refuse(ErrMalformed, "%s delegates to %q, which the snapshot does not list", delegator, role)
	}
	delete(v.tm.Targets, role) // it counts as delegated by this role only
	if err := load(role, delegator); err != nil {
		return nil, err
	}
	t := v.Targets(role)
	if t == nil {
		panic("internal error: tufcore: load did not bring " + role)
	}
	return t, nil
}

// CheckTarget says whether b is what a role signed. A target without a hash, or
// with one of a kind that is not known, cannot be checked and is ErrDigest too.
func CheckTarget(f *metadata.TargetFiles, b []byte) error {
	if err := f.VerifyLengthHashes(b); err != nil {
		return Refuse(ErrDigest, "%v", err)
	}
	return nil
}
