package tufcore

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/cjson"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

type obj = map[string]any

// signer signs everything with one key.
type signer struct {
	t   *testing.T
	key ed25519.PrivateKey
	id  string
	pub obj
}

func newSigner(t *testing.T) *signer {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := metadata.KeyFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	id, err := k.ID()
	if err != nil {
		t.Fatal(err)
	}
	return &signer{t: t, key: key, id: id, pub: obj{"keytype": "ed25519", "scheme": "ed25519", "keyval": obj{"public": hex.EncodeToString(pub)}}}
}

func (s *signer) doc(kind string, more obj) []byte {
	s.t.Helper()
	d := obj{"_type": kind, "spec_version": "1.0.31", "version": 1, "expires": "2040-01-01T00:00:00Z"}
	for k, v := range more {
		d[k] = v
	}
	payload, err := cjson.EncodeCanonical(d)
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := json.Marshal(obj{"signed": d, "signatures": []any{obj{"keyid": s.id, "sig": hex.EncodeToString(ed25519.Sign(s.key, payload))}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return raw
}

// to delegates everything to roles, in order, to be signed with the same key.
func (s *signer) to(roles ...string) obj {
	list := []any{}
	for _, r := range roles {
		list = append(list, obj{"name": r, "keyids": []any{s.id}, "threshold": 1, "terminating": false, "paths": []any{"*"}})
	}
	return obj{"keys": obj{s.id: s.pub}, "roles": list}
}

// begin gives a Verifier whose snapshot lists these roles in version 1.
func (s *signer) begin(roles ...string) *Verifier {
	s.t.Helper()
	r := obj{}
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		r[role] = obj{"keyids": []any{s.id}, "threshold": 1}
	}
	v, err := New(s.doc("root", obj{"consistent_snapshot": true, "keys": obj{s.id: s.pub}, "roles": r}), nil, Standard())
	if err != nil {
		s.t.Fatal(err)
	}
	listed := obj{"targets.json": obj{"version": 1}}
	for _, role := range roles {
		listed[role+".json"] = obj{"version": 1}
	}
	if err := v.UpdateTimestamp(s.doc("timestamp", obj{"meta": obj{"snapshot.json": obj{"version": 1}}}), 0); err != nil {
		s.t.Fatal(err)
	}
	if err := v.UpdateSnapshot(s.doc("snapshot", obj{"meta": listed})); err != nil {
		s.t.Fatal(err)
	}
	return v
}

func TestDelegationsThatMeanTwoThings(t *testing.T) {
	s := newSigner(t)
	bins := func(bits int) obj {
		return obj{"keys": obj{s.id: s.pub}, "succinct_roles": obj{"keyids": []any{s.id}, "threshold": 1, "bit_length": bits, "name_prefix": "bin"}}
	}
	for name, d := range map[string]obj{
		"root": s.to("root"), "targets": s.to("targets"), "snapshot": s.to("A", "snapshot"), "timestamp": s.to("timestamp"),
		"empty": s.to(""), "twice": s.to("A", "B", "A"), "no bins": bins(0), "bins beyond the hash": bins(33), "negative bins": bins(-1),
	} {
		v := s.begin("A", "B")
		if err := v.UpdateTargets("targets", "root", s.doc("targets", obj{"targets": obj{}, "delegations": d})); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if v.Targets("targets") != nil {
			t.Errorf("%s: what was refused counts", name)
		}
	}
	v := s.begin("A", "B")
	if err := v.UpdateTargets("targets", "root", s.doc("targets", obj{"targets": obj{}, "delegations": s.to("A", "B")})); err != nil {
		t.Errorf("names of their own: %v", err)
	}
}

// A chain of delegations is followed no further than the limit.
func TestSearchIsBounded(t *testing.T) {
	s := newSigner(t)
	docs, names := map[string][]byte{}, []string{}
	for i := range 2 * MaxVisits {
		name := fmt.Sprint("r", i)
		names = append(names, name)
		docs[name] = s.doc("targets", obj{"targets": obj{}, "delegations": s.to(fmt.Sprint("r", i+1))})
	}
	docs["targets"] = s.doc("targets", obj{"targets": obj{}, "delegations": s.to("r0")})
	v := s.begin(names...)
	loads := 0
	_, err := v.Find("a", func(role, delegator string) error {
		loads++
		return v.UpdateTargets(role, delegator, docs[role])
	})
	if !errors.Is(err, ErrNotFound) || loads != MaxVisits {
		t.Errorf("%d roles were loaded, then: %v", loads, err)
	}
}

// A role that an earlier search reached by another way does not count for this
// one, whatever load does.
func TestEachSearchVerifiesAnew(t *testing.T) {
	s := newSigner(t)
	a := s.doc("targets", obj{"targets": obj{"x": obj{"length": 1, "hashes": obj{"sha256": hex.EncodeToString(make([]byte, 32))}}}})
	docs := map[string][]byte{"targets": s.doc("targets", obj{"targets": obj{}, "delegations": s.to("A")}), "A": a}
	v := s.begin("A")
	load := func(role, delegator string) error { return v.UpdateTargets(role, delegator, docs[role]) }
	if _, err := v.Find("x", load); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the delegator does not vouch for it")
	if _, err := v.Find("x", func(string, string) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("found without its role: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a role counts that load did not bring")
		}
	}()
	_, _ = v.Find("x", func(string, string) error { return nil })
}

// What is refused leaves the Verifier as it was.
func TestRefusalsLeaveNoTrace(t *testing.T) {
	s := newSigner(t)
	v := s.begin()
	good := s.doc("targets", obj{"targets": obj{}})
	if err := v.UpdateTargets("targets", "root", good); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"another version": s.doc("targets", obj{"targets": obj{}, "version": 2}),
		"a stranger's":    newSigner(t).doc("targets", obj{"targets": obj{}}),
		"unsound":         s.doc("targets", obj{"targets": obj{}, "delegations": s.to("root")}),
	} {
		if err := v.UpdateTargets("targets", "root", raw); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if got := v.Targets("targets"); got == nil || got.Delegations != nil || got.Version != 1 {
			t.Errorf("%s left %+v", name, got)
		}
	}
	floor := v.Floor()
	floor["targets"] = 99
	if v.Floor()["targets"] != 1 {
		t.Error("the floor can be changed from outside")
	}
}
