package tufcore

import (
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
)

// Verifier holds one chain of trusted metadata. The methods are called in the
// order of the chain; what one refuses leaves the Verifier as it was. It is not
// safe for concurrent use.
type Verifier struct {
	policy              Policy
	floor               Floor
	tm                  *trustedmetadata.TrustedMetadata
	timestamp, snapshot Head
}

// New begins at a root that is trusted for other reasons; it is checked to be
// signed by its own keys. The floor is copied. Until SetTime nothing expires.
func New(root []byte, floor Floor, p Policy) (*Verifier, error) {
	h, err := p.Screen(metadata.ROOT, root)
	if err != nil {
		return nil, err
	}
	tm, err := trustedmetadata.New(root)
	if err != nil {
		return nil, Refuse(kindOf(err), "root version %d: %v", h.Version, err)
	}
	tm.RefTime = time.Time{}
	v := &Verifier{policy: p, floor: floor.Clone(), tm: tm}
	if err := v.judgeRoot(); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Verifier) judgeRoot() error {
	if v.policy.Root == nil {
		return nil
	}
	return v.policy.Root(&v.tm.Root.Signed)
}

// Root is the trusted root; it must not be changed.
func (v *Verifier) Root() *metadata.RootType { return &v.tm.Root.Signed }

// Targets is a targets role that was accepted, or nil; it must not be changed.
func (v *Verifier) Targets(role string) *metadata.TargetsType {
	if t := v.tm.Targets[role]; t != nil {
		return &t.Signed
	}
	return nil
}

// Timestamp and Snapshot are what was accepted.
func (v *Verifier) Timestamp() Head { return v.timestamp }

// Snapshot is the head of the accepted snapshot.
func (v *Verifier) Snapshot() Head { return v.snapshot }

// Floor is a copy of the floor, with all that was accepted so far.
func (v *Verifier) Floor() Floor { return v.floor.Clone() }

// SetTime sets the time against which metadata may be expired.
func (v *Verifier) SetTime(t time.Time) { v.tm.RefTime = t }

// UpdateRoot accepts the next version of the root and says what it took away.
func (v *Verifier) UpdateRoot(raw []byte) (Lost, error) {
	if _, err := v.policy.Screen(metadata.ROOT, raw); err != nil {
		return Lost{}, err
	}
	before := v.tm.Root
	want := before.Signed.Version + 1
	if _, err := v.tm.UpdateRoot(raw); err != nil {
		return Lost{}, Refuse(kindOf(err), "root version %d: %v; it must be signed by enough keys of version %d and by enough of its own", want, err, want-1)
	}
	if err := v.judgeRoot(); err != nil {
		v.tm.Root = before
		return Lost{}, err
	}
	l := lost(&before.Signed, &v.tm.Root.Signed)
	v.floor.Forget(l)
	v.floor.Raise(Floor{metadata.ROOT: want})
	return l, nil
}

// UpdateTimestamp accepts a timestamp. It is ErrSame when its signatures hold
// and it has the version current; 0 stands for none.
func (v *Verifier) UpdateTimestamp(raw []byte, current int64) error {
	h, err := v.policy.Screen(metadata.TIMESTAMP, raw)
	if err != nil {
		return err
	}
	_, err = v.tm.UpdateTimestamp(raw)
	t := v.tm.Timestamp
	v.tm.Timestamp = nil // until all else holds
	root := v.Root()
	if err != nil && t == nil {
		if kindOf(err) == ErrExpired {
			return Expired(metadata.ROOT, root.Version, root.Expires, v.tm.RefTime)
		}
		return v.refused(metadata.TIMESTAMP, h, err)
	}
	// From here on the signatures hold; an expired one may still be older
	// than the floor, which is the better reason.
	if v.policy.Timestamp != nil {
		if err := v.policy.Timestamp(h, root.Expires); err != nil {
			return err
		}
	}
	if least := v.floor[metadata.TIMESTAMP]; h.Version < least {
		return Refuse(ErrRollback, "timestamp version %d, but %d was seen before; an old message was replayed, or the hub was restored from a backup",
			h.Version, least)
	}
	if err != nil {
		return Expired(metadata.TIMESTAMP, h.Version, h.Expires, v.tm.RefTime)
	}
	if h.Version == current {
		return ErrSame
	}
	w, _ := h.Of(metadata.SNAPSHOT)
	if least := v.floor[metadata.SNAPSHOT]; w.Version < least {
		return Refuse(ErrRollback, "timestamp lists snapshot version %d, but %d was seen before; the hub was restored from a backup, or its key was stolen", w.Version, least)
	}
	v.tm.Timestamp, v.timestamp = t, h
	v.floor.Raise(Floor{metadata.TIMESTAMP: h.Version})
	return nil
}

// UpdateSnapshot accepts the snapshot that the timestamp names.
func (v *Verifier) UpdateSnapshot(raw []byte) error {
	h, err := v.policy.Screen(metadata.SNAPSHOT, raw)
	if err != nil {
		return err
	}
	w, _ := v.timestamp.Of(metadata.SNAPSHOT)
	if want, d := w.Digest(), Digest(raw); want != "" && d != want {
		return Refuse(ErrDigest, "snapshot has SHA-256 %.16s…, the timestamp says %.16s…; it may be damaged, or timestamp and snapshot are of different publications",
			d, want)
	}
	_, err = v.tm.UpdateSnapshot(raw, false)
	s := v.tm.Snapshot
	v.tm.Snapshot = nil
	if err != nil {
		if kindOf(err) == ErrExpired {
			if s != nil {
				return Expired(metadata.SNAPSHOT, h.Version, h.Expires, v.tm.RefTime)
			}
			return Expired(metadata.TIMESTAMP, v.timestamp.Version, v.timestamp.Expires, v.tm.RefTime)
		}
		return v.refused(metadata.SNAPSHOT, h, err)
	}
	seen, err := v.notBelow(h)
	if err != nil {
		return err
	}
	v.tm.Snapshot, v.snapshot = s, h
	v.floor.Raise(seen)
	return nil
}

// notBelow checks a snapshot and what it lists against the floor, and gives
// their versions.
func (v *Verifier) notBelow(h Head) (Floor, error) {
	if least := v.floor[metadata.SNAPSHOT]; h.Version < least {
		return nil, Refuse(ErrRollback, "snapshot version %d, but %d was seen before; the hub was restored from a backup, or its key was stolen", h.Version, least)
	}
	seen := Floor{metadata.SNAPSHOT: h.Version}
	for name, w := range h.Meta {
		role, ok := strings.CutSuffix(name, ".json")
		if !ok || topLevel(role) && role != metadata.TARGETS || v.policy.Roles != nil && !slices.Contains(v.policy.Roles, role) {
			continue
		}
		seen[role] = w.Version
	}
	for role, least := range v.floor {
		if topLevel(role) && role != metadata.TARGETS {
			continue
		}
		is, listed := seen[role]
		if !listed {
			return nil, Refuse(ErrRollback, "snapshot does not list %s, of which version %d was seen before; the hub was restored from a backup, or its key was stolen", role, least)
		}
		if is < least {
			return nil, Refuse(ErrRollback, "snapshot lists %s version %d, but %d was seen before; the hub was restored from a backup, or its key was stolen",
				role, is, least)
		}
	}
	return seen, nil
}

// UpdateTargets accepts a targets role as delegated by another: "targets" by
// "root", others by a role accepted before. A role reached by two ways is
// accepted anew for each.
func (v *Verifier) UpdateTargets(role, delegator string, raw []byte) error {
	h, err := v.policy.Screen(role, raw)
	if err != nil {
		return err
	}
	before := v.tm.Targets[role]
	got, err := v.tm.UpdateDelegatedTargets(raw, role, delegator)
	if err != nil {
		if kindOf(err) == ErrExpired {
			return Expired(role, h.Version, h.Expires, v.tm.RefTime)
		}
		return v.refused(role, h, err)
	}
	err = sound(role, got.Signed.Delegations)
	if err == nil && v.policy.Targets != nil {
		err = v.policy.Targets(role, &got.Signed)
	}
	if err != nil {
		delete(v.tm.Targets, role)
		if before != nil {
			v.tm.Targets[role] = before
		}
	}
	return err
}

// sound refuses delegations under which one name means two things.
func sound(role string, d *metadata.Delegations) error {
	if d == nil {
		return nil
	}
	if s := d.SuccinctRoles; s != nil && (s.BitLength < 1 || s.BitLength > 32) {
		// The library shifts by it.
		return Refuse(ErrMalformed, "%s delegates to bins of %d bits, allowed are 1 to 32", role, s.BitLength)
	}
	seen := map[string]bool{}
	for _, r := range d.Roles {
		if r.Name == "" || topLevel(r.Name) || seen[r.Name] {
			return Refuse(ErrMalformed, "%s delegates to %q, which is no name of its own", role, r.Name)
		}
		seen[r.Name] = true
	}
	return nil
}

func topLevel(role string) bool {
	switch role {
	case metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP:
		return true
	}
	return false
}

// refused words what the library found.
func (v *Verifier) refused(role string, h Head, err error) error {
	switch kind := kindOf(err); kind {
	case ErrSignature:
		return Refuse(kind, "%s version %d: %v; it was altered, made by another fleet, or signed with keys that root version %d does not name (a newer root may be on its way)",
			role, h.Version, err, v.Root().Version)
	default:
		return Refuse(kind, "%s version %d: %v", role, h.Version, err)
	}
}
