package repo

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
)

// Fields is the signed part of a document, as JSON holds it.
type Fields = map[string]any

// Verifier is what a World is offered to; *trust.Client is one.
type Verifier interface {
	OfferCurrent(payload []byte) error
	OfferRole(role string, version int64, raw []byte) error
}

// World is one publication taken apart.
type World struct {
	Raw   map[string][]byte // targets, models, rollouts, snapshot, timestamp
	Roots []publish.Metadata
	Keys  publish.Keys // what Seal signs with; changing it changes no other World
	// Withhold are roles that Offer leaves out.
	Withhold []string
	t        testing.TB
}

func take(t testing.TB, p *publish.Publication, keys publish.Keys) *World {
	var cur wire.Current
	if err := wire.Decode(p.Current, wire.MaxCurrent, &cur); err != nil {
		t.Fatal(err)
	}
	w := &World{Raw: map[string][]byte{"timestamp": cur.Timestamp, "snapshot": cur.Snapshot}, Keys: maps.Clone(keys), t: t}
	for _, m := range p.Retained {
		if m.Role == wire.RoleRoot {
			w.Roots = append(w.Roots, m)
		} else {
			w.Raw[m.Role] = m.Raw
		}
	}
	return w
}

// Clone is a World that can be edited without changing this one.
func (w *World) Clone() *World {
	c := *w
	c.Raw, c.Keys, c.Roots = maps.Clone(w.Raw), maps.Clone(w.Keys), slices.Clone(w.Roots)
	return &c
}

// In is a Clone whose failures belong to t.
func (w *World) In(t testing.TB) *World {
	c := w.Clone()
	c.t = t
	return c
}

// Version is the version a role's document says it has.
func (w *World) Version(role string) int64 { return versionOf(w.t, w.Raw[role]) }

// Edit changes the signed part of a role's document and signs it again with
// Keys[role]. What names the document does not follow before Seal.
func (w *World) Edit(role string, change func(Fields)) *World {
	w.t.Helper()
	w.Raw[role] = Resign(w.t, w.Raw[role], w.Keys[role], change)
	return w
}

// Bump raises a document's version.
func (w *World) Bump(role string) *World {
	w.t.Helper()
	return w.Edit(role, func(f Fields) { f["version"] = w.Version(role) + 1 })
}

// Expire makes a document end at a time.
func (w *World) Expire(role string, at time.Time) *World {
	w.t.Helper()
	return w.Edit(role, func(f Fields) { f["expires"] = at.UTC().Format(time.RFC3339) })
}

// Seal makes snapshot and timestamp name the documents as they are now, and
// signs both with Keys.
func (w *World) Seal() *World {
	w.t.Helper()
	w.Edit("snapshot", func(f Fields) {
		meta := f["meta"].(map[string]any)
		for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
			meta[role+".json"] = w.name(role)
		}
	})
	return w.SealTimestamp()
}

// SealTimestamp makes the timestamp name the snapshot as it is now.
func (w *World) SealTimestamp() *World {
	w.t.Helper()
	return w.Edit("timestamp", func(f Fields) { f["meta"] = map[string]any{"snapshot.json": w.name("snapshot")} })
}

func (w *World) name(role string) map[string]any {
	sum := sha256.Sum256(w.Raw[role])
	return map[string]any{
		"version": w.Version(role), "length": len(w.Raw[role]),
		"hashes": map[string]any{"sha256": hex.EncodeToString(sum[:])},
	}
}

// Current is the payload of trust/current.
func (w *World) Current() []byte {
	return wire.Encode(wire.Current{V: wire.Version, Timestamp: w.Raw["timestamp"], Snapshot: w.Raw["snapshot"]})
}

// Offer gives everything to a verifier, as a broker that retains it does, and
// answers the first refusal.
func (w *World) Offer(v Verifier) error {
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	for _, m := range w.Roots {
		keep(v.OfferRole(m.Role, m.Version, m.Raw))
	}
	for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		if !slices.Contains(w.Withhold, role) {
			keep(v.OfferRole(role, headVersion(w.Raw[role]), w.Raw[role]))
		}
	}
	keep(v.OfferCurrent(w.Current()))
	return first
}

// TrySeal is Seal for documents that may be broken; it says whether it could.
func (w *World) TrySeal() bool {
	for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		if headVersion(w.Raw[role]) == 0 {
			return false
		}
	}
	w.Seal()
	return true
}

// TrySealTimestamp is SealTimestamp for a snapshot that may be broken.
func (w *World) TrySealTimestamp() bool {
	if headVersion(w.Raw["snapshot"]) == 0 {
		return false
	}
	w.SealTimestamp()
	return true
}

// Resign changes the signed part of any document and signs it with signers
// alone.
func Resign(t testing.TB, raw []byte, signers []crypto.Signer, change func(Fields)) []byte {
	t.Helper()
	out, err := TryResign(raw, signers, change)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryResign is Resign for changes that no document can hold.
func TryResign(raw []byte, signers []crypto.Signer, change func(Fields)) ([]byte, error) {
	var doc struct {
		Signed     Fields           `json:"signed"`
		Signatures []map[string]any `json:"signatures"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&doc); err != nil {
		return nil, err
	}
	if change != nil {
		change(doc.Signed)
	}
	payload, err := cjson.EncodeCanonical(doc.Signed)
	if err != nil {
		return nil, err
	}
	doc.Signatures = []map[string]any{}
	for _, s := range signers {
		id, err := keyID(s)
		if err != nil {
			return nil, err
		}
		sig, err := s.Sign(rand.Reader, payload, crypto.Hash(0))
		if err != nil {
			return nil, err
		}
		doc.Signatures = append(doc.Signatures, map[string]any{"keyid": id, "sig": hex.EncodeToString(sig)})
	}
	return json.Marshal(doc)
}

// KeyID is how metadata calls a key.
func KeyID(t testing.TB, s crypto.Signer) string {
	t.Helper()
	id, err := keyID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func keyID(s crypto.Signer) (string, error) {
	k, err := metadata.KeyFromPublicKey(s.Public())
	if err != nil {
		return "", err
	}
	return k.ID()
}

func versionOf(t testing.TB, raw []byte) int64 {
	v := headVersion(raw)
	if v == 0 {
		t.Fatalf("no version in %.80q", raw)
	}
	return v
}

// headVersion is what the document says, or 1 where it says nothing readable.
func headVersion(raw []byte) int64 {
	var doc struct {
		Signed struct {
			Version int64 `json:"version"`
		} `json:"signed"`
	}
	if json.Unmarshal(raw, &doc) != nil {
		return 1
	}
	return doc.Signed.Version
}
