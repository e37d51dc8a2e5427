package publish

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// Life is how long a role's metadata holds unless Init was told otherwise.
func Life(role string) time.Duration {
	const day = 24 * time.Hour
	switch role {
	case wire.RoleRoot, wire.RoleTargets:
		return 365 * day
	case wire.RoleModels:
		return 180 * day
	case metadata.TIMESTAMP:
		return day
	}
	return 7 * day
}

// ends is when metadata signed now expires, in whole seconds.
func ends(role string, now time.Time) time.Time {
	return now.Add(Life(role)).UTC().Truncate(time.Second)
}

// sign signs with every signer and gives the final bytes, checked against the
// role's limit.
func sign[T metadata.Roles](role string, m *metadata.Metadata[T], signers []crypto.Signer) ([]byte, error) {
	payload, err := cjson.EncodeCanonical(m.Signed)
	if err != nil {
		return nil, fail(ErrInvalid, "sign %s: %v", role, err)
	}
	m.ClearSignatures()
	if len(signers) == 0 {
		return nil, fail(ErrKeys, "no key to sign %s with", role)
	}
	seen := map[string]bool{}
	for _, s := range signers {
		_, id, err := tufKeys(role, []crypto.Signer{s})
		if err != nil {
			return nil, err
		}
		if seen[id[0]] {
			continue
		}
		seen[id[0]] = true
		sig, err := s.Sign(rand.Reader, payload, crypto.Hash(0))
		if err != nil {
			return nil, fail(err, "sign %s with key %.16s…", role, id[0])
		}
		m.Signatures = append(m.Signatures, metadata.Signature{KeyID: id[0], Signature: sig})
	}
	raw, err := m.ToBytes(false)
	if err != nil {
		return nil, fail(ErrInvalid, "sign %s: %v", role, err)
	}
	if limit := wire.MaxMetadata(role); len(raw) > limit {
		return nil, fail(ErrTooLarge, "%s would have %d bytes, allowed are %d; %s", role, len(raw), limit, remedy(role))
	}
	return raw, nil
}

// remedy is what to do when a role's metadata has grown too large.
func remedy(role string) string {
	switch role {
	case wire.RoleModels:
		return "retire releases that no device runs any more (RetireReleases)"
	case wire.RoleRollouts:
		return "close plans that are done, or select by labels or threshold instead of listing devices"
	}
	return "use fewer keys"
}

// metaOf is how snapshot and timestamp name other metadata.
func metaOf(raw []byte, version int64) *metadata.MetaFiles {
	sum := sha256.Sum256(raw)
	return &metadata.MetaFiles{Version: version, Length: int64(len(raw)), Hashes: metadata.Hashes{"sha256": sum[:]}}
}
