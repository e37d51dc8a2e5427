package tufcore

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// maxDepth bounds the nesting of metadata; a plan in its target needs nine.
const maxDepth = 16

// Want is what one piece of metadata says about another. Length 0 and no
// hashes: it does not say.
type Want struct {
	Version int64             `json:"version"`
	Length  int64             `json:"length"`
	Hashes  map[string]string `json:"hashes"`
}

// Digest is the SHA-256 that is wanted; empty: it does not say.
func (w Want) Digest() string { return w.Hashes["sha256"] }

type tufKey struct {
	Type   string `json:"keytype"`
	Scheme string `json:"scheme"`
	Value  struct {
		Public string `json:"public"`
	} `json:"keyval"`
}

// Head is the part of any metadata that is looked at before the signatures:
// enough to turn away what the verifier would stumble over. It is unverified.
type Head struct {
	Type        string            `json:"_type"`
	Spec        string            `json:"spec_version"`
	Version     int64             `json:"version"`
	Expires     time.Time         `json:"expires"`
	Meta        map[string]Want   `json:"meta"`
	Keys        map[string]tufKey `json:"keys"`
	Delegations struct {
		Keys map[string]tufKey `json:"keys"`
	} `json:"delegations"`
}

// Of is what h says about a role; ok is false when it says nothing.
func (h Head) Of(role string) (w Want, ok bool) {
	w, ok = h.Meta[role+".json"]
	return w, ok
}

// Screen checks size and shape of a role's metadata. It proves nothing about
// who made it. The library behind the verifier dereferences what it finds at
// places where JSON may say null, and trusts keys to have their length.
func (p Policy) Screen(role string, raw []byte) (Head, error) {
	limit := p.MaxBytes(role)
	if limit == 0 {
		return Head{}, Refuse(ErrMalformed, "there is no role %q", role)
	}
	if len(raw) > limit {
		return Head{}, Refuse(ErrMalformed, "%s has %d bytes, allowed are %d", role, len(raw), limit)
	}
	var tree any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return Head{}, Refuse(ErrMalformed, "%s is no JSON (%v); a transfer may have been cut short", role, err)
	}
	if err := plain(tree, maxDepth); err != nil {
		return Head{}, Refuse(ErrMalformed, "%s: %v", role, err)
	}
	var doc struct {
		Signed Head `json:"signed"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return Head{}, Refuse(ErrMalformed, "%s: %v", role, err)
	}
	if err := p.check(role, doc.Signed); err != nil {
		return Head{}, Refuse(ErrMalformed, "%s: %v", role, err)
	}
	return doc.Signed, nil
}

// plain refuses null, which no signer writes, and deep nesting.
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
func (p Policy) typeOf(role string) (kind string, lists []string) {
	switch role {
	case metadata.TIMESTAMP:
		return role, []string{metadata.SNAPSHOT}
	case metadata.SNAPSHOT:
		if p.Roles != nil {
			return role, p.Roles
		}
		return role, []string{metadata.TARGETS}
	case metadata.ROOT:
		return role, nil
	}
	return metadata.TARGETS, nil
}

func (p Policy) check(role string, h Head) error {
	kind, lists := p.typeOf(role)
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
		w, ok := h.Of(r)
		if !ok || w.Version < 1 {
			return fmt.Errorf("names no version of %s", r)
		}
		if p.Strict && (w.Length < 1 || w.Length > int64(p.MaxBytes(r)) || !validDigest(w.Digest())) {
			return fmt.Errorf("names no version, length and SHA-256 of %s", r)
		}
	}
	for _, keys := range []map[string]tufKey{h.Keys, h.Delegations.Keys} {
		for id, k := range keys {
			if err := p.checkKey(k); err != nil {
				return fmt.Errorf("key %.16s…: %v", id, err)
			}
		}
	}
	return nil
}

// checkKey is for the library, which takes an Ed25519 key of any length and
// then panics.
func (p Policy) checkKey(k tufKey) error {
	ed := k.Type == metadata.KeyTypeEd25519
	if b, err := hex.DecodeString(k.Value.Public); ed && (err != nil || len(b) != 32) {
		return fmt.Errorf("is no Ed25519 key")
	}
	if p.Strict && (!ed || k.Scheme != metadata.KeySchemeEd25519) {
		return fmt.Errorf("is no Ed25519 key")
	}
	return nil
}

func validDigest(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == sha256.Size && hex.EncodeToString(b) == s
}

// Digest is the SHA-256 of b in hexadecimal.
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
