package trust

import (
	"bytes"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
)

// How much of what was offered is kept. With the limits per role this bounds
// the memory that any flood of offers can take to about 3.5 MiB.
const (
	MaxRotations = 16 // roots followed in one refresh, and kept ahead of the trusted one
	perRoot      = 2  // offers of the same root version
	perRole      = 4  // offers of any other role
	maxCurrents  = 4
)

// rootPatience is how long a bad signature is put down to a root that is
// missing from the chain.
const rootPatience = time.Minute

// candidate is a timestamp with its snapshot.
type candidate struct {
	timestamp, snapshot []byte
	version             int64 // of the timestamp, as it says itself
	// refused is the version of the root under which the candidate was
	// refused; under another root it is tried again.
	refused int64
}

// offer is metadata of one role.
type offer struct {
	version int64
	raw     []byte
}

// offers is what may be tried by the next refresh. All of it is unverified.
type offers struct {
	currents []candidate
	roots    map[int64][]offer
	roles    map[string][]offer
	wanted   map[string]tufcore.Want // by a verified snapshot; such an offer always finds room
}

func newOffers() *offers {
	return &offers{roots: map[int64][]offer{}, roles: map[string][]offer{}, wanted: map[string]tufcore.Want{}}
}

// addCurrent keeps a candidate; the oldest gives way.
func (o *offers) addCurrent(c candidate) {
	for _, k := range o.currents {
		if bytes.Equal(k.timestamp, c.timestamp) && bytes.Equal(k.snapshot, c.snapshot) {
			return
		}
	}
	if len(o.currents) == maxCurrents {
		o.currents = slices.Delete(o.currents, 0, 1)
	}
	o.currents = append(o.currents, c)
}

// newestFirst is the order in which candidates are tried.
func (o *offers) newestFirst() []candidate {
	out := slices.Clone(o.currents)
	slices.SortStableFunc(out, func(a, b candidate) int { return compare(b.version, a.version) })
	return out
}

// drop removes a candidate.
func (o *offers) drop(c candidate) {
	o.currents = slices.DeleteFunc(o.currents, func(k candidate) bool {
		return bytes.Equal(k.timestamp, c.timestamp) && bytes.Equal(k.snapshot, c.snapshot)
	})
}

// setRefused remembers under which root a candidate was refused.
func (o *offers) setRefused(c candidate, root int64) {
	for i, k := range o.currents {
		if bytes.Equal(k.timestamp, c.timestamp) && bytes.Equal(k.snapshot, c.snapshot) {
			o.currents[i].refused = root
		}
	}
}

// addRoot keeps a root that is ahead of the trusted one, but not too far.
func (o *offers) addRoot(trusted int64, f offer) {
	if f.version <= trusted || f.version > trusted+MaxRotations {
		return
	}
	o.roots[f.version] = keep(o.roots[f.version], f, perRoot)
}

// forgetRoots drops what the trusted root has passed.
func (o *offers) forgetRoots(trusted int64) {
	for v := range o.roots {
		if v <= trusted {
			delete(o.roots, v)
		}
	}
}

// rootGap says whether a root is there that cannot be reached.
func (o *offers) rootGap(trusted int64) bool {
	return len(o.roots) > 0 && len(o.roots[trusted+1]) == 0
}

// addRole keeps one role's metadata. When there are too many, the lowest
// version gives way, but never what a verified snapshot waits for.
func (o *offers) addRole(role string, f offer) {
	have := o.roles[role]
	if slices.ContainsFunc(have, func(k offer) bool { return bytes.Equal(k.raw, f.raw) }) {
		return
	}
	have = append(have, f)
	if len(have) > perRole {
		w, waiting := o.wanted[role]
		lowest := -1
		for i, k := range have {
			if waiting && tufcore.Digest(k.raw) == w.Digest() {
				continue
			}
			if lowest < 0 || k.version < have[lowest].version {
				lowest = i
			}
		}
		have = slices.Delete(have, lowest, lowest+1)
	}
	o.roles[role] = have
}

// want keeps a place for what a verified snapshot lists.
func (o *offers) want(role string, w tufcore.Want) { o.wanted[role] = w }

// find gives the offer that is exactly what the snapshot says. An offer of the
// wanted version that is something else is dropped and makes it ErrDigest.
func (o *offers) find(role string, w tufcore.Want) ([]byte, error) {
	var other string
	for _, k := range slices.Clone(o.roles[role]) {
		d := tufcore.Digest(k.raw)
		if d == w.Digest() {
			return k.raw, nil
		}
		if k.version == w.Version {
			other = d
			o.roles[role] = slices.DeleteFunc(o.roles[role], func(x offer) bool { return bytes.Equal(x.raw, k.raw) })
		}
	}
	if other != "" {
		return nil, refuse(ErrDigest, "%s version %d was offered with SHA-256 %.16s…, the snapshot says %.16s…; it may be damaged, exchanged, or left over from another fleet",
			role, w.Version, other, w.Digest())
	}
	return nil, &MissingError{Role: role, Version: w.Version}
}

// settle drops what an accepted world makes useless.
func (o *offers) settle(versions map[string]int64) {
	o.currents = slices.DeleteFunc(o.currents, func(c candidate) bool { return c.version <= versions[metadata.TIMESTAMP] })
	for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		o.roles[role] = slices.DeleteFunc(o.roles[role], func(k offer) bool { return k.version <= versions[role] })
	}
	clear(o.wanted)
}

func keep(have []offer, f offer, limit int) []offer {
	if slices.ContainsFunc(have, func(k offer) bool { return bytes.Equal(k.raw, f.raw) }) {
		return have
	}
	if len(have) == limit {
		have = slices.Delete(have, 0, 1)
	}
	return append(have, f)
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
