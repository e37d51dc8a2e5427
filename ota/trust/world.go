package trust

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/droverhq/drover/agent/wire"
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

// errNothingNew says that a timestamp is the one that is trusted already.
var errNothingNew = errors.New("trust: nothing new")

// builder verifies a candidate step by step. It does no I/O.
type builder struct {
	root  []byte
	ref   time.Time // zero: expiry does not matter, the set was accepted before
	floor floor
	// current is the timestamp version already accepted; a candidate of the
	// same version is errNothingNew. 0 when there is none.
	current int64
	find    func(role string, w want) ([]byte, error)
	// wanted, if set, hears what the verified snapshot lists before find is
	// asked for any of it.
	wanted func(role string, w want)
	log    *slog.Logger

	tm *trustedmetadata.TrustedMetadata
	w  *world
}

// build verifies timestamp, snapshot and what they name.
func (b *builder) build(timestamp, snapshot []byte) (*world, error) {
	tm, err := trustedmetadata.New(b.root)
	if err != nil {
		return nil, fmt.Errorf("internal error: trust: the trusted root is not: %w", err)
	}
	tm.RefTime = b.ref
	b.tm = tm
	b.w = &world{raw: map[string][]byte{}, versions: map[string]int64{}, expires: map[string]time.Time{}}
	if err := b.timestamp(timestamp); err != nil {
		return nil, err
	}
	if err := b.snapshot(timestamp, snapshot); err != nil {
		return nil, err
	}
	if err := b.roles(snapshot); err != nil {
		return nil, err
	}
	b.w.expires[metadata.ROOT] = tm.Root.Signed.Expires
	b.readReleases()
	if err := b.readPlans(); err != nil {
		return nil, err
	}
	return b.w, nil
}

func (b *builder) note(role string, raw []byte, h head) {
	b.w.raw[role], b.w.versions[role], b.w.expires[role] = raw, h.Version, h.Expires
}

func (b *builder) timestamp(raw []byte) error {
	h, err := screen(metadata.TIMESTAMP, raw)
	if err != nil {
		return err
	}
	_, err = b.tm.UpdateTimestamp(raw)
	if err != nil && b.tm.Timestamp == nil {
		if kindOf(err) == ErrExpired {
			return expired(metadata.ROOT, b.tm.Root.Signed.Version, b.tm.Root.Signed.Expires, b.ref)
		}
		return b.refused(metadata.TIMESTAMP, h, err)
	}
	// From here on the signatures hold; an expired one may still be older
	// than the floor, which is the better reason.
	if end := b.tm.Root.Signed.Expires; h.Version > end.Unix() {
		return refuse(ErrVersionSkip, "timestamp says it is %s, but its root ends %s; the hub's clock is wrong, or its key was stolen (root must replace it)",
			day(time.Unix(h.Version, 0)), day(end))
	}
	if least := b.floor.Versions[metadata.TIMESTAMP]; h.Version < least {
		return refuse(ErrRollback, "timestamp version %d, but %d was seen before; an old message was replayed, or the hub was restored from a backup",
			h.Version, least)
	}
	if err != nil {
		return expired(metadata.TIMESTAMP, h.Version, h.Expires, b.ref)
	}
	if h.Version == b.current {
		return errNothingNew
	}
	if t := time.Unix(h.Version, 0); !b.ref.IsZero() && t.After(b.ref) {
		b.ref, b.tm.RefTime = t, t
	}
	b.note(metadata.TIMESTAMP, raw, h)
	return nil
}

func (b *builder) snapshot(timestamp, raw []byte) error {
	t, err := screen(metadata.TIMESTAMP, timestamp)
	if err != nil {
		return err
	}
	h, err := screen(metadata.SNAPSHOT, raw)
	if err != nil {
		return err
	}
	w := t.Meta[metadata.SNAPSHOT+".json"]
	if d := digestOf(raw); d != w.digest() {
		return refuse(ErrDigest, "snapshot has SHA-256 %.16s…, the timestamp says %.16s…; it may be damaged, or timestamp and snapshot are of different publications",
			d, w.digest())
	}
	if _, err := b.tm.UpdateSnapshot(raw, false); err != nil {
		if kindOf(err) == ErrExpired {
			if b.tm.Snapshot != nil {
				return expired(metadata.SNAPSHOT, h.Version, h.Expires, b.tm.RefTime)
			}
			return expired(metadata.TIMESTAMP, t.Version, t.Expires, b.tm.RefTime)
		}
		return b.refused(metadata.SNAPSHOT, h, err)
	}
	if least := b.floor.Versions[metadata.SNAPSHOT]; h.Version < least {
		return refuse(ErrRollback, "snapshot version %d, but %d was seen before; the hub was restored from a backup, or its key was stolen", h.Version, least)
	}
	for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		if v, least := h.Meta[role+".json"].Version, b.floor.Versions[role]; v < least {
			return refuse(ErrRollback, "snapshot lists %s version %d, but %d was seen before; the hub was restored from a backup, or its key was stolen",
				role, v, least)
		}
	}
	b.note(metadata.SNAPSHOT, raw, h)
	return nil
}

// roles verifies targets and what it delegates to.
func (b *builder) roles(snapshot []byte) error {
	s, err := screen(metadata.SNAPSHOT, snapshot)
	if err != nil {
		return err
	}
	roles := []struct{ role, delegator string }{
		{wire.RoleTargets, metadata.ROOT}, {wire.RoleModels, wire.RoleTargets}, {wire.RoleRollouts, wire.RoleTargets},
	}
	for _, r := range roles {
		if b.wanted != nil {
			b.wanted(r.role, s.Meta[r.role+".json"])
		}
	}
	for _, r := range roles {
		raw, err := b.find(r.role, s.Meta[r.role+".json"])
		if err != nil {
			return err
		}
		h, err := screen(r.role, raw)
		if err != nil {
			return err
		}
		got, err := b.tm.UpdateDelegatedTargets(raw, r.role, r.delegator)
		if err != nil {
			if kindOf(err) == ErrExpired {
				return expired(r.role, h.Version, h.Expires, b.tm.RefTime)
			}
			return b.refused(r.role, h, err)
		}
		if err := checkDelegations(r.role, got.Signed.Delegations); err != nil {
			return err
		}
		b.note(r.role, raw, h)
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

// refOf reads a target's length and digest.
func refOf(t *metadata.TargetFiles) wire.BlobRef {
	return wire.BlobRef{Digest: fmt.Sprintf("%x", []byte(t.Hashes["sha256"])), Size: t.Length}
}

// readReleases takes from models what lies below its path; the rest of what it
// signs means nothing.
func (b *builder) readReleases() {
	b.w.releases = map[string]wire.BlobRef{}
	for path, t := range b.tm.Targets[wire.RoleModels].Signed.Targets {
		if _, _, err := wire.ParseReleasePath(path); err == nil {
			b.w.releases[path] = refOf(t)
		}
	}
}

// readPlans takes from rollouts what lies below its path. A plan this program
// cannot read is left out with a warning: it may hold a condition that must
// not be missed, and must not keep the others from working.
func (b *builder) readPlans() error {
	targets := b.tm.Targets[wire.RoleRollouts].Signed.Targets
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

// refused words what the library found.
func (b *builder) refused(role string, h head, err error) error {
	switch kind := kindOf(err); kind {
	case ErrSignature:
		return refuse(kind, "%s version %d: %v; it was altered, made by another fleet, or signed with keys that root version %d does not name (a newer root may be on its way)",
			role, h.Version, err, b.tm.Root.Signed.Version)
	default:
		return refuse(kind, "%s version %d: %v", role, h.Version, err)
	}
}

func expired(role string, version int64, end, ref time.Time) error {
	return refuse(ErrExpired, "%s version %d ended %s, and it is at least %s; the hub has not published since, or someone holds its messages back",
		role, version, day(end), day(ref))
}

func day(t time.Time) string { return t.UTC().Format(time.RFC3339) }
