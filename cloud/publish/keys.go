package publish

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// Keys are the signers per role: one, or as many as the role's threshold
// wants. A signer may stand for a token or a remote service; its public key
// must be Ed25519.
type Keys map[string][]crypto.Signer

// Online says whether the hub holds the role's key.
func Online(role string) bool {
	return role == wire.RoleRollouts || role == metadata.SNAPSHOT || role == metadata.TIMESTAMP
}

// Generate makes one key for every role, in memory.
func Generate() (Keys, error) {
	keys := Keys{}
	for _, role := range allRoles() {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("publish: make %s key: %w", role, err)
		}
		keys[role] = []crypto.Signer{key}
	}
	return keys, nil
}

// Roles are the roles that have keys, as Generate makes them.
func Roles() []string { return allRoles() }

// tufKeys turns signers into what metadata lists.
func tufKeys(role string, signers []crypto.Signer) (map[string]*metadata.Key, []string, error) {
	keys := map[string]*metadata.Key{}
	var ids []string
	for _, s := range signers {
		pub, ok := s.Public().(ed25519.PublicKey)
		if !ok {
			return nil, nil, fail(ErrKeys, "%s key is %T, wanted Ed25519", role, s.Public())
		}
		k, err := metadata.KeyFromPublicKey(pub)
		if err != nil {
			return nil, nil, fail(ErrKeys, "%s key: %v", role, err)
		}
		id, err := k.ID()
		if err != nil {
			return nil, nil, fail(ErrKeys, "%s key: %v", role, err)
		}
		if !slices.Contains(ids, id) {
			keys[id], ids = k, append(ids, id)
		}
	}
	return keys, ids, nil
}

// check says whether every role has keys enough, and whether online and
// offline roles are apart: a key that serves both would give a stolen hub what
// only the owner may do.
func (k Keys) check(roles []string, thresholds map[string]int) error {
	offline := map[string]string{}
	for _, online := range []bool{false, true} {
		for _, role := range roles {
			if Online(role) != online {
				continue
			}
			_, ids, err := tufKeys(role, k[role])
			if err != nil {
				return err
			}
			if need := threshold(thresholds, role); len(ids) < need {
				return fail(ErrKeys, "%d keys for %s, its threshold is %d", len(ids), role, need)
			}
			for _, id := range ids {
				if other := offline[id]; online && other != "" {
					return fail(ErrKeys, "one key serves %s, which is offline, and %s, which the hub holds", other, role)
				}
				if !online {
					offline[id] = role
				}
			}
		}
	}
	return nil
}

func threshold(t map[string]int, role string) int { return max(1, t[role]) }
