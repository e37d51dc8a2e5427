package trust

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
)

// world is one verified set of metadata below a root. It does not change.
type world struct {
	raw      map[string][]byte // by role, without root
	versions map[string]int64
	expires  map[string]time.Time
	releases map[string]wire.BlobRef // by path, as models signs them
	plans    []signedPlan            // highest serial first
}

type signedPlan struct {
	plan wire.Plan
	ref  wire.BlobRef // of the manifest, as rollouts says
}

// builder verifies a candidate step by step. It does no I/O.
type builder struct {
	root  []byte
	ref   time.Time // zero: expiry does not matter, the set was accepted before
	floor floor
	// current is the timestamp version already accepted; a candidate of the
	// same version is tufcore.ErrSame. 0 when there is none.
	current int64
	find    func(role string, w tufcore.Want) ([]byte, error)
	// wanted, if set, hears what the verified snapshot lists before find is
	// asked for any of it.
	wanted func(role string, w tufcore.Want)
	log    *slog.Logger

	v *tufcore.Verifier
	w *world
}

// build verifies timestamp, snapshot and what they name.
func (b *builder) build(timestamp, snapshot []byte) (*world, error) {
	v, err := tufcore.New(b.root, b.floor.Versions, policy())
	if err != nil {
		return nil, fmt.Errorf("internal error: trust: the trusted root is not: %w", err)
	}
	v.SetTime(b.ref)
	b.v = v
	b.w = &world{raw: map[string][]byte{}, versions: map[string]int64{}, expires: map[string]time.Time{}}
	if err := v.UpdateTimestamp(timestamp, b.current); err != nil {
		return nil, err
	}
	b.note(metadata.TIMESTAMP, timestamp, v.Timestamp().Version, v.Timestamp().Expires)
	if t := time.Unix(v.Timestamp().Version, 0); !b.ref.IsZero() && t.After(b.ref) {
		v.SetTime(t) // the rest must hold at the time the timestamp tells
	}
	if err := v.UpdateSnapshot(snapshot); err != nil {
		return nil, err
	}
	b.note(metadata.SNAPSHOT, snapshot, v.Snapshot().Version, v.Snapshot().Expires)
	if err := b.roles(); err != nil {
		return nil, err
	}
	b.w.expires[metadata.ROOT] = v.Root().Expires
	b.readReleases()
	if err := b.readPlans(); err != nil {
		return nil, err
	}
	return b.w, nil
}

func (b *builder) note(role string, raw []byte, version int64, expires time.Time) {
	b.w.raw[role], b.w.versions[role], b.w.expires[role] = raw, version, expires
}

// roles verifies targets and what it delegates to.
func (b *builder) roles() error {
	roles := []struct{ role, delegator string }{
		{wire.RoleTargets, metadata.ROOT}, {wire.RoleModels, wire.RoleTargets}, {wire.RoleRollouts, wire.RoleTargets},
	}
	for _, r := range roles {
		if b.wanted != nil {
			w, _ := b.v.Snapshot().Of(r.role)
			b.wanted(r.role, w)
		}
	}
	for _, r := range roles {
		w, _ := b.v.Snapshot().Of(r.role)
		raw, err := b.find(r.role, w)
		if err != nil {
			return err
		}
		if err := b.v.UpdateTargets(r.role, r.delegator, raw); err != nil {
			return err
		}
		t := b.v.Targets(r.role)
		b.note(r.role, raw, t.Version, t.Expires)
	}
	return nil
}

// refOf reads a target's length and digest.
func refOf(t *metadata.TargetFiles) wire.BlobRef {
	return wire.BlobRef{Digest: fmt.Sprintf("%x", []byte(t.Hashes["sha256"])), Size: t.Length}
}

// readReleases takes from models what lies below its path; the rest of what it
// signs means nothing.
func (b *builder) readReleases() {
	b.w.releases = map[string]wire.BlobRef{}
	for path, t := range b.v.Targets(wire.RoleModels).Targets {
		if _, _, err := wire.ParseReleasePath(path); err == nil {
			b.w.releases[path] = refOf(t)
		}
	}
}

// readPlans takes from rollouts what lies below its path. A plan this program
// cannot read is left out with a warning: it may hold a condition that must
// not be missed, and must not keep the others from working.
func (b *builder) readPlans() error {
	targets := b.v.Targets(wire.RoleRollouts).Targets
	if len(targets) > wire.MaxPending {
		return refuse(ErrMalformed, "rollouts holds %d plans, allowed are %d at once", len(targets), wire.MaxPending)
	}
	for path, t := range targets {
		id, ok := strings.CutPrefix(path, wire.RolloutPath(""))
		if !ok {
			continue
		}
		p, err := decodePlan(id, t)
		if err != nil {
			b.log.Warn("trust: plan left out", "plan", id, "error", err)
			continue
		}
		b.w.plans = append(b.w.plans, signedPlan{plan: *p, ref: refOf(t)})
	}
	slices.SortFunc(b.w.plans, func(x, y signedPlan) int {
		if c := compare(y.plan.Serial, x.plan.Serial); c != 0 {
			return c
		}
		return strings.Compare(x.plan.ID, y.plan.ID)
	})
	return nil
}

func decodePlan(id string, t *metadata.TargetFiles) (*wire.Plan, error) {
	if t.Custom == nil {
		return nil, refuse(ErrMalformed, "target rollout/%s has no plan", id)
	}
	p, err := wire.DecodePlan(*t.Custom)
	if err != nil {
		return nil, refuse(ErrMalformed, "plan %q: %v", id, err)
	}
	if p.ID != id {
		return nil, refuse(ErrMalformed, "target rollout/%s holds the plan of %q", id, p.ID)
	}
	return p, nil
}

// expiry is the role of a world that expires first.
func (w *world) expiry() (role string, at time.Time) {
	for r, t := range w.expires {
		if role == "" || t.Before(at) || t.Equal(at) && r < role {
			role, at = r, t
		}
	}
	return role, at
}
