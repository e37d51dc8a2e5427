package trust

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// maxDepth bounds the nesting of metadata; a plan in its target needs nine.
const maxDepth = 16

// want is what one piece of metadata says about another.
type want struct {
	Version int64             `json:"version"`
	Length  int64             `json:"length"`
	Hashes  map[string]string `json:"hashes"`
}

func (w want) digest() string { return w.Hashes["sha256"] }

type tufKey struct {
	Type   string `json:"keytype"`
	Scheme string `json:"scheme"`
	Value  struct {
		Public string `json:"public"`
	} `json:"keyval"`
}

// head is the part of any metadata that is looked at before the signatures:
// enough to turn away what the verifier would stumble over.
type head struct {
	Type        string            `json:"_type"`
	Spec        string            `json:"spec_version"`
	Version     int64             `json:"version"`
	Expires     time.Time         `json:"expires"`
	Meta        map[string]want   `json:"meta"`
	Keys        map[string]tufKey `json:"keys"`
	Delegations struct {
		Keys map[string]tufKey `json:"keys"`
	} `json:"delegations"`
}

// screen checks size and shape of a role's metadata. It proves nothing about
// who made it. The library behind the verifier dereferences what it finds at
// places where JSON may say null, and trusts keys to have their length.
func screen(role string, raw []byte) (head, error) {
	limit := wire.MaxMetadata(role)
	if limit == 0 {
		return head{}, refuse(ErrMalformed, "there is no role %q", role)
	}
	if len(raw) > limit {
		return head{}, refuse(ErrMalformed, "%s has %d bytes, allowed are %d", role, len(raw), limit)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return head{}, refuse(ErrMalformed, "%s is no JSON (%v); a transfer may have been cut short", role, err)
	}
	if err := plain(tree, maxDepth); err != nil {
		return head{}, refuse(ErrMalformed, "%s: %v", role, err)
	}
	var doc struct {
		Signed head `json:"signed"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return head{}, refuse(ErrMalformed, "%s: %v", role, err)
	}
	if err := doc.Signed.check(role); err != nil {
		return head{}, refuse(ErrMalformed, "%s: %v", role, err)
	}
	return doc.Signed, nil
}

// plain refuses null, which no signer of ours writes, and deep nesting.
func plain(v any, depth int) error {
	if depth == 0 {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case nil:
		return fmt.Errorf("null where a value belongs")
	case map[string]any:
		for _, e := range v {
			if err := plain(e, depth-1); err != nil {
				return err
			}
		}
	case []any:
		for _, e := range v {
			if err := plain(e, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// typeOf is the _type of a role's metadata, and what it must list in meta.
func typeOf(role string) (kind string, lists []string) {
	switch role {
	case metadata.TIMESTAMP:
		return role, []string{metadata.SNAPSHOT}
	case metadata.SNAPSHOT:
		return role, []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts}
	case metadata.ROOT:
		return role, nil
	}
	return metadata.TARGETS, nil
}

func (h head) check(role string) error {
	kind, lists := typeOf(role)
	if h.Type != kind {
		return fmt.Errorf("type %q, expected %q", h.Type, kind)
	}
	if !strings.HasPrefix(h.Spec, "1.") {
		return fmt.Errorf("specification version %q, this program reads 1.x", h.Spec)
	}
	if h.Version < 1 {
		return fmt.Errorf("version %d, expected at least 1", h.Version)
	}
	if h.Expires.IsZero() {
		return fmt.Errorf("no expiry")
	}
	for _, r := range lists {
		w, ok := h.Meta[r+".json"]
		if !ok || w.Version < 1 || w.Length < 1 || w.Length > int64(wire.MaxMetadata(r)) || !wire.ValidDigest(w.digest()) {
			return fmt.Errorf("names no version, length and SHA-256 of %s", r)
		}
	}
	for _, keys := range []map[string]tufKey{h.Keys, h.Delegations.Keys} {
		for id, k := range keys {
			b, err := hex.DecodeString(k.Value.Public)
			if k.Type != metadata.KeyTypeEd25519 || k.Scheme != metadata.KeySchemeEd25519 || err != nil || len(b) != 32 {
				return fmt.Errorf("key %.16s… is no Ed25519 key", id)
			}
		}
	}
	return nil
}
