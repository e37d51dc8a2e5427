package publish

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// keyring is who may sign a role, and how many of them must.
type keyring struct {
	ids       []string
	keys      map[string]ed25519.PublicKey
	threshold int
}

// ringOf reads a role's keyring out of what names it: root, or targets for
// models and rollouts.
func ringOf(namer []byte, role string) (keyring, error) {
	var keys map[string]*metadata.Key
	var ids []string
	var need int
	if delegated(role) {
		var t metadata.Metadata[metadata.TargetsType]
		if _, err := t.FromBytes(namer); err != nil {
			return keyring{}, fail(ErrInvalid, "targets: %v", err)
		}
		d, err := delegation(&t.Signed, role)
		if err != nil {
			return keyring{}, err
		}
		keys, ids, need = t.Signed.Delegations.Keys, d.KeyIDs, d.Threshold
	} else {
		var r metadata.Metadata[metadata.RootType]
		if _, err := r.FromBytes(namer); err != nil {
			return keyring{}, fail(ErrInvalid, "root: %v", err)
		}
		named := r.Signed.Roles[role]
		if named == nil {
			return keyring{}, fail(ErrInvalid, "root names no keys of %s", role)
		}
		keys, ids, need = r.Signed.Keys, named.KeyIDs, named.Threshold
	}
	ring := keyring{ids: ids, keys: map[string]ed25519.PublicKey{}, threshold: need}
	for _, id := range ids {
		pub, err := publicOf(keys[id])
		if err != nil {
			return keyring{}, fail(ErrInvalid, "key %.12s… of %s: %v", id, role, err)
		}
		ring.keys[id] = pub
	}
	return ring, nil
}

func publicOf(k *metadata.Key) (ed25519.PublicKey, error) {
	if k == nil {
		return nil, fail(ErrKeys, "is not there")
	}
	pub, err := k.ToPublicKey()
	if err != nil {
		return nil, err
	}
	ed, ok := pub.(ed25519.PublicKey)
	if !ok {
		return nil, fail(ErrKeys, "is %T, wanted Ed25519", pub)
	}
	return ed, nil
}

// delegated says whether a role's keys stand in targets rather than in root.
func delegated(role string) bool { return role == wire.RoleModels || role == wire.RoleRollouts }

func delegation(t *metadata.TargetsType, role string) (*metadata.DelegatedRole, error) {
	if t.Delegations != nil {
		for i := range t.Delegations.Roles {
			if t.Delegations.Roles[i].Name == role {
				return &t.Delegations.Roles[i], nil
			}
		}
	}
	return nil, fail(ErrInvalid, "targets delegates nothing to %s", role)
}

// signedBy are the keys of the ring whose signatures over payload are good.
func (k keyring) signedBy(payload []byte, sigs []metadata.Signature) []string {
	var out []string
	for _, s := range sigs {
		if pub, ok := k.keys[s.KeyID]; ok && !slices.Contains(out, s.KeyID) && ed25519.Verify(pub, payload, s.Signature) {
			out = append(out, s.KeyID)
		}
	}
	return out
}

// namer is the role that names a role's keys.
func namer(role string) string {
	if delegated(role) {
		return wire.RoleTargets
	}
	return wire.RoleRoot
}

// ring is a role's keyring as the repo has it.
func ring(ctx context.Context, repo Repo, role string) (keyring, error) {
	raw, version, err := repo.Latest(ctx, namer(role))
	if err != nil {
		return keyring{}, fail(err, "read %s", namer(role))
	}
	if version == 0 {
		return keyring{}, fail(ErrNoFleet, "there is no %s; make a fleet with drover init", namer(role))
	}
	return ringOf(raw, role)
}

// Standing is how a role stands: who may sign it, and until when what is
// signed holds.
type Standing struct {
	Renewal
	Version   int64
	Threshold int
	Keys      []string // key ids
	Pending   bool     // due now
}

// Standings are all roles, in the order in which they are made.
func Standings(ctx context.Context, repo Repo, now time.Time) ([]Standing, error) {
	pending, later, err := Due(ctx, repo, now)
	if err != nil {
		return nil, err
	}
	var out []Standing
	for _, role := range allRoles() {
		s := Standing{Pending: slices.ContainsFunc(pending, func(r Renewal) bool { return r.Role == role })}
		for _, r := range append(pending, later...) {
			if r.Role == role {
				s.Renewal = r
			}
		}
		if _, s.Version, err = repo.Latest(ctx, role); err != nil {
			return nil, fail(err, "read %s", role)
		}
		k, err := ring(ctx, repo, role)
		if err != nil {
			return nil, err
		}
		s.Threshold, s.Keys = k.threshold, k.ids
		out = append(out, s)
	}
	return out, nil
}

// Entitled gives those of the signers that may sign the role now: a folder of
// keys may still hold some that were replaced, or already some to come.
func Entitled(ctx context.Context, repo Repo, role string, signers []crypto.Signer) ([]crypto.Signer, error) {
	k, err := ring(ctx, repo, role)
	if err != nil {
		return nil, err
	}
	var out []crypto.Signer
	for _, s := range signers {
		id, err := KeyID(s.Public())
		if err != nil {
			return nil, err
		}
		if _, ok := k.keys[id]; ok {
			out = append(out, s)
		}
	}
	if len(out) == 0 {
		return nil, fail(ErrKeys, "none of the %d keys at hand may sign %s; its keys are %s", len(signers), role, shortIDs(k.ids))
	}
	return out, nil
}

// Accepted says whether the newest version of models or rollouts is signed as
// the newest targets want it. After a change of keys it may not be.
func Accepted(ctx context.Context, repo Repo, role string) (bool, error) {
	k, err := ring(ctx, repo, role)
	if err != nil {
		return false, err
	}
	raw, _, err := repo.Latest(ctx, role)
	if err != nil {
		return false, fail(err, "read %s", role)
	}
	doc, err := parseDocument(role, raw)
	if err != nil {
		return false, err
	}
	return len(k.signedBy(doc.payload, doc.sigs)) >= k.threshold, nil
}

// KeyID is the name of a public key in metadata: 64 hexadecimal digits.
// ErrKeys for one that is not Ed25519.
func KeyID(pub crypto.PublicKey) (string, error) {
	_, ids, err := tufKeys("signing", []crypto.Signer{publicOnly{pub}})
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// FindKey completes the beginning of a key id of a role, six digits at least.
func FindKey(ctx context.Context, repo Repo, role, prefix string) (string, error) {
	k, err := ring(ctx, repo, role)
	if err != nil {
		return "", err
	}
	var found []string
	for _, id := range k.ids {
		if strings.HasPrefix(id, strings.ToLower(prefix)) {
			found = append(found, id)
		}
	}
	if len(prefix) < 6 || len(found) != 1 {
		return "", fail(ErrKeys, "%q is the beginning of %d keys of %s, which has %s; give 6 digits or more of one", prefix, len(found), role, shortIDs(k.ids))
	}
	return found[0], nil
}

// ShortID is how a key id is shown to people.
func ShortID(id string) string { return id[:min(12, len(id))] }

func shortIDs(ids []string) string {
	if len(ids) == 0 {
		return "none"
	}
	var out []string
	for _, id := range ids {
		out = append(out, ShortID(id))
	}
	return strings.Join(out, ", ")
}
