package publish

import (
	"context"
	"crypto"
	"maps"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust"
)

// MaxAhead is how far the last timestamp may lie beyond the clock.
const MaxAhead = time.Hour

// Publication is what a broker retains. All of it was verified.
type Publication struct {
	Current []byte // payload of trust/current
	// Retained are the payloads of trust/{role}/{version}: all roots, and the
	// newest of targets, models and rollouts. They go out before Current.
	Retained []Metadata
	Versions map[string]int64 // of every role
	Expires  time.Time        // when the first of them does
}

// Publish puts the newest metadata of all roles together under a new
// timestamp, and a new snapshot if anything changed or it is due, appends both
// to repo and gives what is to be retained. It refuses with ErrClock to sign
// far from the time of the last timestamp or past the root's expiry.
func Publish(ctx context.Context, repo Repo, snapshot, timestamp []crypto.Signer, now time.Time) (*Publication, error) {
	p, fresh, err := compose(ctx, repo, snapshot, timestamp, now, func(role string) time.Time { return ends(role, now) })
	if err != nil {
		return nil, err
	}
	if err := repo.Append(ctx, fresh...); err != nil {
		return nil, fail(err, "store snapshot and timestamp")
	}
	return p, nil
}

// Published gives again what was published last, without signing: for a hub
// that starts with an empty broker. ErrNoFleet before Init.
func Published(ctx context.Context, repo Repo) (*Publication, error) {
	var snap metadata.Metadata[metadata.SnapshotType]
	rawSnap, err := latest(ctx, repo, metadata.SNAPSHOT, &snap)
	if err != nil {
		return nil, err
	}
	var ts metadata.Metadata[metadata.TimestampType]
	rawTS, err := latest(ctx, repo, metadata.TIMESTAMP, &ts)
	if err != nil {
		return nil, err
	}
	return gather(ctx, repo, rawTS, rawSnap, &snap.Signed)
}

// compose signs snapshot and timestamp over the newest of everything and
// verifies the whole. fresh is what is to be appended.
func compose(ctx context.Context, repo Repo, snapSigners, tsSigners []crypto.Signer, now time.Time, end func(string) time.Time) (p *Publication, fresh []Metadata, err error) {
	previous, err := Published(ctx, repo)
	if err != nil {
		previous = nil // the first one, or one that only a new signature can mend
	}
	snap, rawSnap, isNew, err := nextSnapshot(ctx, repo, snapSigners, now, end)
	if err != nil {
		return nil, nil, err
	}
	if isNew {
		fresh = append(fresh, Metadata{metadata.SNAPSHOT, snap.Version, rawSnap})
	}
	ts := metadata.Timestamp(end(metadata.TIMESTAMP))
	if ts.Signed.Version, err = nextTimestamp(ctx, repo, now); err != nil {
		return nil, nil, err
	}
	ts.Signed.Meta = map[string]*metadata.MetaFiles{metadata.SNAPSHOT + ".json": metaOf(rawSnap, snap.Version)}
	rawTS, err := sign(metadata.TIMESTAMP, ts, tsSigners)
	if err != nil {
		return nil, nil, err
	}
	fresh = append(fresh, Metadata{metadata.TIMESTAMP, ts.Signed.Version, rawTS})
	if p, err = gather(ctx, with(repo, fresh), rawTS, rawSnap, snap); err != nil {
		return nil, nil, err
	}
	return p, fresh, p.verify(previous)
}

// nextSnapshot gives the snapshot over the newest of everything: the last one
// where it still says so and is not due, or a new one.
func nextSnapshot(ctx context.Context, repo Repo, signers []crypto.Signer, now time.Time, end func(string) time.Time) (snap *metadata.SnapshotType, raw []byte, isNew bool, err error) {
	meta := map[string]*metadata.MetaFiles{}
	for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		raw, version, err := repo.Latest(ctx, role)
		if err != nil {
			return nil, nil, false, fail(err, "read %s", role)
		}
		if version == 0 {
			return nil, nil, false, fail(ErrNoFleet, "there is no %s; make a fleet with drover init", role)
		}
		meta[role+".json"] = metaOf(raw, version)
	}
	next := metadata.Snapshot(end(metadata.SNAPSHOT))
	next.Signed.Meta = meta
	old, version, err := repo.Latest(ctx, metadata.SNAPSHOT)
	if err != nil {
		return nil, nil, false, fail(err, "read snapshot")
	}
	if version > 0 {
		var last metadata.Metadata[metadata.SnapshotType]
		if _, err := last.FromBytes(old); err == nil && sameMeta(last.Signed.Meta, meta) && signedBy(last.Signatures, signers) &&
			!due(metadata.SNAPSHOT, last.Signed.Expires, now) {
			return &last.Signed, old, false, nil
		}
		next.Signed.Version = version + 1
	}
	raw, err = sign(metadata.SNAPSHOT, next, signers)
	return &next.Signed, raw, true, err
}

func sameMeta(a, b map[string]*metadata.MetaFiles) bool {
	return maps.EqualFunc(a, b, func(x, y *metadata.MetaFiles) bool {
		return x.Version == y.Version && x.Length == y.Length && x.Hashes.Equal(y.Hashes)
	})
}

// signedBy says whether all signers have signed already; a key may be new.
func signedBy(sigs []metadata.Signature, signers []crypto.Signer) bool {
	_, ids, err := tufKeys(metadata.SNAPSHOT, signers)
	have := map[string]bool{}
	for _, s := range sigs {
		have[s.KeyID] = true
	}
	for _, id := range ids {
		if !have[id] {
			return false
		}
	}
	return err == nil && len(ids) > 0
}

// nextTimestamp is the next timestamp's version: the time, or one more than
// the last if time stood still.
func nextTimestamp(ctx context.Context, repo Repo, now time.Time) (int64, error) {
	_, last, err := repo.Latest(ctx, metadata.TIMESTAMP)
	if err != nil {
		return 0, fail(err, "read timestamp")
	}
	if ahead := time.Unix(last, 0).Sub(now); last > 0 && ahead > MaxAhead {
		return 0, fail(ErrClock, "the last publication says %s, which is %s ahead of this machine's clock; set the clock, or wait, or replace the timestamp key in root if the clock was wrong then",
			time.Unix(last, 0).UTC().Format(time.RFC3339), ahead.Round(time.Second))
	}
	var root metadata.Metadata[metadata.RootType]
	if _, err := latest(ctx, repo, wire.RoleRoot, &root); err != nil {
		return 0, err
	}
	version := max(last+1, now.Unix())
	if end := root.Signed.Expires; version > end.Unix() {
		return 0, fail(ErrClock, "root version %d ended %s and this machine's clock says %s; renew root with its offline keys, or set the clock",
			root.Signed.Version, end.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return version, nil
}

// gather collects what is to be retained.
func gather(ctx context.Context, repo Repo, ts, snap []byte, s *metadata.SnapshotType) (*Publication, error) {
	p := &Publication{
		Current:  wire.Encode(wire.Current{V: wire.Version, Timestamp: ts, Snapshot: snap}),
		Versions: map[string]int64{metadata.SNAPSHOT: s.Version},
	}
	if len(p.Current) > wire.MaxCurrent {
		return nil, fail(ErrTooLarge, "current would have %d bytes, allowed are %d; use fewer online keys", len(p.Current), wire.MaxCurrent)
	}
	_, newest, err := repo.Latest(ctx, wire.RoleRoot)
	if err != nil {
		return nil, fail(err, "read root")
	}
	p.Versions[wire.RoleRoot] = newest
	for v := int64(1); v <= newest; v++ {
		raw, err := repo.Get(ctx, wire.RoleRoot, v)
		if err != nil {
			return nil, fail(err, "read root version %d", v)
		}
		p.Retained = append(p.Retained, Metadata{wire.RoleRoot, v, raw})
	}
	for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		m := s.Meta[role+".json"]
		if m == nil {
			return nil, fail(ErrInvalid, "snapshot version %d does not list %s", s.Version, role)
		}
		raw, err := repo.Get(ctx, role, m.Version)
		if err != nil {
			return nil, fail(err, "read %s version %d", role, m.Version)
		}
		p.Versions[role] = m.Version
		p.Retained = append(p.Retained, Metadata{role, m.Version, raw})
	}
	return p, p.stamp(ts, snap)
}

// stamp fills in the timestamp's version and the first expiry.
func (p *Publication) stamp(ts, snap []byte) error {
	all := []Metadata{{metadata.TIMESTAMP, 0, ts}, {metadata.SNAPSHOT, 0, snap}}
	for _, m := range p.Retained {
		if m.Version == p.Versions[m.Role] {
			all = append(all, m)
		}
	}
	for _, m := range all {
		h, err := readHead(m.Raw)
		if err != nil {
			return fail(ErrInvalid, "%s: %v", m.Role, err)
		}
		if m.Role == metadata.TIMESTAMP {
			p.Versions[m.Role] = h.Version
		}
		if p.Expires.IsZero() || h.Expires.Before(p.Expires) {
			p.Expires = h.Expires
		}
	}
	return nil
}

// verify runs the device's own verifier over the publication: as a device that
// took the previous one, where that still holds, and as a new device.
func (p *Publication) verify(previous *Publication) error {
	for _, before := range []*Publication{previous, nil} {
		c, err := trust.Open(trust.Options{Store: new(trust.Memory), Root: p.newestRoot(), Boottime: func() time.Duration { return 0 }})
		if err != nil {
			return err
		}
		if before != nil {
			// It may be expired, or signed with keys that were replaced.
			if before.offer(c) != nil || c.Refresh() != nil {
				continue
			}
		}
		if err := p.offer(c); err != nil {
			return err
		}
		if err := c.Refresh(); err != nil {
			return err
		}
		if got := c.Status().Versions[metadata.TIMESTAMP]; got != p.Versions[metadata.TIMESTAMP] {
			return fail(ErrInvalid, "a device would stay at timestamp %d and not take %d", got, p.Versions[metadata.TIMESTAMP])
		}
	}
	return nil
}

func (p *Publication) newestRoot() []byte {
	for _, m := range p.Retained {
		if m.Role == wire.RoleRoot && m.Version == p.Versions[wire.RoleRoot] {
			return m.Raw
		}
	}
	return nil
}

// offer gives everything to a verifier.
func (p *Publication) offer(c *trust.Client) error {
	for _, m := range p.Retained {
		if err := c.OfferRole(m.Role, m.Version, m.Raw); err != nil {
			return err
		}
	}
	return c.OfferCurrent(p.Current)
}
