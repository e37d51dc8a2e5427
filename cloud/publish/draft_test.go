package publish_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// token is a signer as a hardware token is one: the key does not come out, and
// every use is counted.
type token struct {
	key  crypto.Signer
	uses int
}

func (k *token) Public() crypto.PublicKey { return k.key.Public() }
func (k *token) Sign(r io.Reader, b []byte, o crypto.SignerOpts) ([]byte, error) {
	k.uses++
	return k.key.Sign(r, b, o)
}

func public(s crypto.Signer) ed25519.PublicKey { return s.Public().(ed25519.PublicKey) }

func id(t *testing.T, s crypto.Signer) string {
	t.Helper()
	id, err := publish.KeyID(s.Public())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// carry takes a draft to another machine and back: signers are the keys there.
func carry(t *testing.T, d *publish.Draft, signers ...crypto.Signer) *publish.Draft {
	t.Helper()
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	there, err := publish.DecodeDraft(b)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := there.Sign(signers...); err != nil || n == 0 && len(signers) > 0 {
		t.Fatalf("%d signatures, %v", n, err)
	}
	if b, err = there.Encode(); err != nil {
		t.Fatal(err)
	}
	back, err := publish.DecodeDraft(b)
	if err != nil {
		t.Fatal(err)
	}
	return back
}

func finish(t *testing.T, f *repo.Fleet, d *publish.Draft) {
	t.Helper()
	if err := d.Finish(t.Context(), f, f.Time); err != nil {
		t.Fatal(err)
	}
}

func draft(t *testing.T, f *repo.Fleet, c publish.KeyChange) *publish.Draft {
	t.Helper()
	d, err := publish.DraftKeys(t.Context(), f, c, f.Time)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// republish is what the hub does when the owner's metadata is new.
func republish(t *testing.T, f *repo.Fleet) *publish.Publication {
	t.Helper()
	ok, err := publish.Accepted(t.Context(), f, wire.RoleRollouts)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		if err := publish.Resign(t.Context(), f, wire.RoleRollouts, f.Keys[wire.RoleRollouts], f.Time); err != nil {
			t.Fatal(err)
		}
	}
	return publishNow(t, f)
}

// Every role's key is exchanged, and a device that was there from the beginning
// follows each time.
func TestEveryRoleRotates(t *testing.T) {
	f := repo.New(t)
	f.Roll("first", 1, f.Release("gate", 1))
	dev := device(t, f)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	for _, role := range publish.Roles() {
		t.Run(role, func(t *testing.T) {
			f.Pass(time.Hour)
			old, next := f.Keys[role][0], repo.Key(t)
			d := draft(t, f, publish.KeyChange{Role: role, Add: []ed25519.PublicKey{public(next)}, Remove: []string{id(t, old)}})
			// Each holder signs on a machine of his own.
			for _, r := range []string{wire.RoleRoot, wire.RoleTargets, wire.RoleModels} {
				signers := f.Keys[r]
				if r == role {
					signers = []crypto.Signer{old, next}
				}
				if complete, err := d.Complete(); err != nil || complete {
					break
				}
				b, err := d.Encode()
				if err != nil {
					t.Fatal(err)
				}
				if d, err = publish.DecodeDraft(b); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Sign(signers...); err != nil {
					t.Fatal(err)
				}
			}
			finish(t, f, d)
			f.Keys[role] = []crypto.Signer{next}
			p := republish(t, f)
			if err := deliver(t, dev, p); err != nil {
				t.Fatal(err)
			}
			if got := dev.Status().Versions["timestamp"]; got != p.Versions["timestamp"] {
				t.Errorf("the device stays at %d, published is %d", got, p.Versions["timestamp"])
			}
			if o, err := dev.Select("cam-1", nil); err != nil || o == nil {
				t.Errorf("after the rotation: %v, %v", o, err)
			}
			ring, err := publish.Standings(t.Context(), f, f.Time)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range ring {
				if s.Role == role && !slices.Equal(s.Keys, []string{id(t, next)}) {
					t.Errorf("keys of %s are %v", role, s.Keys)
				}
			}
		})
	}
}

func TestDeviceSleepsThroughThreeRoots(t *testing.T) {
	f := repo.New(t)
	f.Roll("first", 1, f.Release("gate", 1))
	dev := device(t, f)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		f.Pass(30 * 24 * time.Hour)
		old, next := f.Keys["root"][0], repo.Key(t)
		d := draft(t, f, publish.KeyChange{Role: "root", Add: []ed25519.PublicKey{public(next)}, Remove: []string{id(t, old)}})
		finish(t, f, carry(t, carry(t, d, old), next))
		f.Keys["root"] = []crypto.Signer{next}
	}
	if err := publish.Resign(t.Context(), f, wire.RoleRollouts, f.Keys[wire.RoleRollouts], f.Time); err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, dev, republish(t, f)); err != nil {
		t.Fatal(err)
	}
	if v := dev.Status().Versions["root"]; v != 4 {
		t.Errorf("the device trusts root %d, want 4", v)
	}
	if o, err := dev.Select("cam-1", nil); err != nil || o == nil {
		t.Errorf("after the sleep: %v, %v", o, err)
	}
}

// Three people hold models keys, two of them must sign; one key is lost.
func TestTwoOfThreeWithOneLost(t *testing.T) {
	keys, err := publish.Generate()
	if err != nil {
		t.Fatal(err)
	}
	a, b, lost := &token{key: repo.Key(t)}, &token{key: repo.Key(t)}, repo.Key(t)
	keys[wire.RoleModels] = []crypto.Signer{a, b, lost}
	f := repo.NewWith(t, keys, publish.InitOptions{Thresholds: map[string]int{wire.RoleModels: 2}})
	a.uses, b.uses = 0, 0
	dev := device(t, f)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	manifest := repo.Manifest("gate", 1)
	d, err := publish.DraftRelease(t.Context(), f, manifest, f.Time)
	if err != nil {
		t.Fatal(err)
	}
	d = carry(t, d, a)
	if err := d.Finish(t.Context(), f, f.Time); !errors.Is(err, publish.ErrKeys) {
		t.Fatalf("one of two signatures is enough: %v", err)
	}
	finish(t, f, carry(t, d, b))
	f.SetPlans(repo.Plan("first", 1, "release/gate/1"))
	if err := deliver(t, dev, republish(t, f)); err != nil {
		t.Fatal(err)
	}
	if o, err := dev.Select("cam-1", nil); err != nil || o == nil {
		t.Fatalf("signed by two of three: %v, %v", o, err)
	}
	if a.uses != 1 || b.uses != 1 {
		t.Errorf("the tokens were used %d and %d times, want once each", a.uses, b.uses)
	}

	// The lost key goes, another comes; the release stays.
	next := repo.Key(t)
	d = draft(t, f, publish.KeyChange{Role: wire.RoleModels, Remove: []string{id(t, lost)}, Add: []ed25519.PublicKey{public(next)}, Distrust: true})
	finish(t, f, carry(t, d, f.Keys[wire.RoleTargets]...))
	if d, err = publish.DraftRelease(t.Context(), f, repo.Manifest("gate", 2), f.Time); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Sign(lost); err != nil || n != 0 {
		t.Errorf("the lost key still signs: %d, %v", n, err)
	}
	finish(t, f, carry(t, carry(t, d, a), next))
	f.SetPlans(repo.Plan("first", 1, "release/gate/1"), repo.Plan("second", 2, "release/gate/2"))
	if err := deliver(t, dev, republish(t, f)); err != nil {
		t.Fatal(err)
	}
	if o, err := dev.Select("cam-1", nil); err != nil || o == nil || o.Path() != "release/gate/2" {
		t.Errorf("signed by the two that are left: %+v, %v", o, err)
	}
}

// A models key was stolen. What only it has signed is refused, by the draft and
// by devices; what another holder signed as well stays.
func TestRevokedModelsKey(t *testing.T) {
	keys, err := publish.Generate()
	if err != nil {
		t.Fatal(err)
	}
	stolen, good := keys[wire.RoleModels][0], repo.Key(t)
	keys[wire.RoleModels] = []crypto.Signer{stolen, good}
	f := repo.NewWith(t, keys, publish.InitOptions{})
	f.Release("gate", 1) // by both
	f.Keys[wire.RoleModels] = []crypto.Signer{stolen}
	evil, doubtful := f.Release("gate", 2), f.Release("gate", 3)
	f.SetPlans(repo.Plan("evil", 1, evil))
	dev := device(t, f)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	if o, err := dev.Select("cam-1", nil); err != nil || o == nil || o.Path() != evil {
		t.Fatalf("before: %+v, %v", o, err)
	}
	d := draft(t, f, publish.KeyChange{Role: wire.RoleModels, Remove: []string{id(t, stolen)}, Distrust: true, Keep: []string{doubtful}})
	lines, err := d.Changes()
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(lines, "\n"); !strings.Contains(text, "- "+evil) || !strings.Contains(text, "2 releases stay") {
		t.Errorf("it is not said what goes:\n%s", text)
	}
	if n, err := d.Sign(stolen); err != nil || n != 0 {
		t.Fatalf("the stolen key has a say: %d, %v", n, err)
	}
	finish(t, f, carry(t, carry(t, d, keys[wire.RoleTargets]...), good))

	if err := publish.SetPlans(t.Context(), f, keys[wire.RoleRollouts], []wire.Plan{repo.Plan("evil", 2, evil)}, f.Time); !errors.Is(err, publish.ErrUnsigned) {
		t.Errorf("a plan for it: %v", err)
	}
	f.SetPlans(repo.Plan("doubtful", 3, doubtful))
	if err := deliver(t, dev, republish(t, f)); err != nil {
		t.Fatal(err)
	}
	if o, err := dev.Select("cam-1", nil); err != nil || o == nil || o.Path() != doubtful {
		t.Errorf("after: %+v, %v", o, err)
	}
	if _, err := publish.AddRelease(t.Context(), f, []crypto.Signer{stolen}, repo.Manifest("gate", 4), f.Time); !errors.Is(err, publish.ErrKeys) {
		t.Errorf("the stolen key signs another release: %v", err)
	}
}

// The hub is stolen too: it offers models as the revoked key signed them, under
// a snapshot of its own.
func TestRevokedModelsKeyWithStolenHub(t *testing.T) {
	f := repo.New(t)
	stolen, next := f.Keys[wire.RoleModels][0], repo.Key(t)
	f.Roll("first", 1, f.Release("gate", 1))
	dev := device(t, f)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	d := draft(t, f, publish.KeyChange{Role: wire.RoleModels, Add: []ed25519.PublicKey{public(next)}, Remove: []string{id(t, stolen)}, Distrust: true, Keep: []string{"release/gate/1"}})
	finish(t, f, carry(t, carry(t, d, f.Keys[wire.RoleTargets]...), next))
	f.Pass(time.Minute)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	f.Pass(time.Minute)
	w := f.Publish()
	w.Keys[wire.RoleModels] = []crypto.Signer{stolen}
	w.Edit(wire.RoleModels, func(s repo.Fields) { s["version"] = 99 })
	w.Seal()
	err := w.Offer(dev)
	if err == nil {
		err = dev.Refresh()
	}
	if !errors.Is(err, trust.ErrSignature) {
		t.Errorf("models signed with the revoked key: %v", err)
	}
}

func TestDraftsThatAreRefused(t *testing.T) {
	f := repo.New(t)
	k := func() ed25519.PublicKey { return public(repo.Key(t)) }
	own := func(role string) string { return id(t, f.Keys[role][0]) }
	for name, row := range map[string]struct {
		c    publish.KeyChange
		want error
	}{
		"the last key":            {publish.KeyChange{Role: "models", Remove: []string{own("models")}}, publish.ErrKeys},
		"another role's key":      {publish.KeyChange{Role: "models", Remove: []string{own("root")}, Add: []ed25519.PublicKey{k()}}, publish.ErrKeys},
		"threshold over keys":     {publish.KeyChange{Role: "targets", Threshold: 2}, publish.ErrKeys},
		"negative threshold":      {publish.KeyChange{Role: "targets", Threshold: -1, Add: []ed25519.PublicKey{k()}}, publish.ErrKeys},
		"nothing":                 {publish.KeyChange{Role: "targets", Threshold: 1}, publish.ErrInvalid},
		"unknown role":            {publish.KeyChange{Role: "mirrors", Threshold: 1}, publish.ErrInvalid},
		"a key that is there":     {publish.KeyChange{Role: "root", Add: []ed25519.PublicKey{public(f.Keys["root"][0])}}, publish.ErrExists},
		"the hub's for models":    {publish.KeyChange{Role: "models", Add: []ed25519.PublicKey{public(f.Keys["timestamp"][0])}}, publish.ErrKeys},
		"root's for the hub":      {publish.KeyChange{Role: "snapshot", Add: []ed25519.PublicKey{public(f.Keys["root"][0])}}, publish.ErrKeys},
		"root's for targets":      {publish.KeyChange{Role: "targets", Add: []ed25519.PublicKey{public(f.Keys["root"][0])}}, publish.ErrKeys},
		"release that is unknown": {publish.KeyChange{Role: "models", Add: []ed25519.PublicKey{k()}, Remove: []string{own("models")}, Distrust: true, Keep: []string{"release/x/1"}}, publish.ErrUnsigned},
	} {
		if _, err := publish.DraftKeys(t.Context(), f, row.c, f.Time); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
	for _, role := range []string{"timestamp", "rollouts", "x"} {
		if _, err := publish.DraftRenewal(t.Context(), f, role, f.Time); !errors.Is(err, publish.ErrInvalid) {
			t.Errorf("renewal of %s: %v", role, err)
		}
	}
}

func TestStaleAndExpiredDrafts(t *testing.T) {
	f := repo.New(t)
	d, err := publish.DraftRelease(t.Context(), f, repo.Manifest("gate", 2), f.Time)
	if err != nil {
		t.Fatal(err)
	}
	d = carry(t, d, f.Keys["models"]...)
	if err := d.Finish(t.Context(), f, f.Time.AddDate(1, 0, 0)); !errors.Is(err, publish.ErrInvalid) {
		t.Errorf("a year later: %v", err)
	}
	f.Release("gate", 1)
	if err := d.Finish(t.Context(), f, f.Time); !errors.Is(err, publish.ErrStale) {
		t.Errorf("after another release: %v", err)
	}
	if err := d.Finish(t.Context(), repo.New(t), f.Time); !errors.Is(err, publish.ErrStale) {
		t.Errorf("in another fleet: %v", err)
	}
}

// Holders may sign copies at the same time; the copies are put together.
func TestMerge(t *testing.T) {
	f := repo.New(t)
	a, b := f.Keys["root"][0], repo.Key(t)
	d := draft(t, f, publish.KeyChange{Role: "root", Add: []ed25519.PublicKey{public(b)}, Threshold: 2})
	one, two := carry(t, d, a), carry(t, d, b)
	if err := one.Merge(two); err != nil {
		t.Fatal(err)
	}
	other := draft(t, f, publish.KeyChange{Role: "root", Add: []ed25519.PublicKey{public(repo.Key(t))}})
	if err := one.Merge(other); !errors.Is(err, publish.ErrInvalid) {
		t.Errorf("copies of different drafts: %v", err)
	}
	finish(t, f, one)
	// From now on one of them is not enough.
	d, err := publish.DraftRenewal(t.Context(), f, "root", f.Time)
	if err != nil {
		t.Fatal(err)
	}
	d = carry(t, d, a)
	needs, err := d.Needs()
	if err != nil || len(needs) != 1 || needs[0].Met() || !slices.Equal(needs[0].Missing, []string{id(t, b)}) {
		t.Errorf("needs %+v, %v", needs, err)
	}
}

// A signature may be made by something that no Go program reaches.
func TestSignatureFromOutside(t *testing.T) {
	f := repo.New(t)
	hsm := f.Keys["models"][0]
	d, err := publish.DraftRelease(t.Context(), f, repo.Manifest("gate", 1), f.Time)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := d.Payload("models")
	if err != nil {
		t.Fatal(err)
	}
	sig, err := hsm.Sign(nil, payload, crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(sig)
	bad[7] ^= 1
	for name, err := range map[string]error{
		"wrong signature": d.Attach("models", public(hsm), bad),
		"stranger":        d.Attach("models", public(repo.Key(t)), sig),
	} {
		if !errors.Is(err, publish.ErrKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Attach("root", public(hsm), sig); !errors.Is(err, publish.ErrInvalid) {
		t.Errorf("a role that is not drafted: %v", err)
	}
	if err := d.Attach("models", public(hsm), sig); err != nil {
		t.Fatal(err)
	}
	finish(t, f, d)
}

// What a draft builds on must be signed, or a thief could smuggle in a release
// as one that had been there before.
func TestForgedBase(t *testing.T) {
	f := repo.New(t)
	f.Release("gate", 1)
	d, err := publish.DraftRelease(t.Context(), f, repo.Manifest("gate", 2), f.Time)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	forged := bytes.ReplaceAll(b, []byte("release/gate/1"), []byte("release/evil/1"))
	if bytes.Equal(forged, b) {
		t.Fatal("nothing was forged")
	}
	if _, err := publish.DecodeDraft(forged); !errors.Is(err, publish.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func FuzzDraft(f *testing.F) {
	fleet := repo.New(f)
	next := repo.Key(f)
	for _, c := range []publish.KeyChange{
		{Role: "root", Add: []ed25519.PublicKey{public(next)}},
		{Role: "models", Add: []ed25519.PublicKey{public(next)}, Threshold: 2},
	} {
		d, err := publish.DraftKeys(f.Context(), fleet, c, fleet.Time)
		if err != nil {
			f.Fatal(err)
		}
		b, err := d.Encode()
		if err != nil || len(b) == 0 {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := publish.DecodeDraft(b)
		if err != nil {
			return
		}
		if _, err := d.Changes(); err != nil {
			t.Errorf("a draft that cannot be explained: %v", err)
		}
		if _, err := d.Encode(); err != nil && !errors.Is(err, publish.ErrTooLarge) {
			t.Errorf("a draft that cannot be written: %v", err)
		}
	})
}
