package trust_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// rotate replaces the root key n times and publishes.
func rotate(t testing.TB, s *story, n int) *repo.World {
	t.Helper()
	for range n {
		next := signers(repo.Key(t))
		s.Pass(time.Second)
		if err := publish.RotateRoot(context.Background(), s, s.Keys["root"], publish.Keys{"root": next}, nil, s.Time); err != nil {
			t.Fatal(err)
		}
		s.Keys["root"] = next
	}
	s.Pass(time.Second)
	return s.Publish()
}

func TestRootChainIsFollowed(t *testing.T) {
	s := newStory(t)
	w := rotate(t, s, 3)
	slices.Reverse(w.Roots) // a broker sends retained messages in any order
	s.dev.mustTake(w)
	if got := s.dev.Status().Versions["root"]; got != 4 {
		t.Errorf("root version %d, want 4", got)
	}
	s.dev.restart()
	if got := s.dev.Status(); got.Versions["root"] != 4 || !got.Fresh {
		t.Errorf("after a restart %+v", got)
	}
}

func TestLongRootChainTakesSeveralRefreshes(t *testing.T) {
	s := newStory(t)
	w := rotate(t, s, trust.MaxRotations+5)
	for range 2 {
		if err := s.dev.take(w); err != nil {
			if _, missing := errors.AsType[*trust.MissingError](err); !missing {
				t.Fatal(err)
			}
		}
	}
	if got := s.dev.Status().Versions["root"]; got != trust.MaxRotations+6 {
		t.Errorf("root version %d, want %d", got, trust.MaxRotations+6)
	}
}

func TestGapInTheRootChainIsMissing(t *testing.T) {
	s := newStory(t)
	next := publish.Keys{"timestamp": signers(repo.Key(t))}
	if err := publish.RotateRoot(t.Context(), s, s.Keys["root"], next, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	s.Keys["timestamp"] = next["timestamp"]
	w := rotate(t, s, 1)
	roots := w.Roots
	w.Roots = roots[2:] // version 3 alone
	err := s.dev.take(w)
	m, ok := errors.AsType[*trust.MissingError](err)
	if !ok || m.Role != "root" || m.Version != 2 {
		t.Fatalf("answered %v, want a wait for root 2", err)
	}
	if err := s.dev.OfferRole("root", 2, roots[1].Raw); err != nil {
		t.Fatal(err)
	}
	if err := s.dev.Refresh(); err != nil {
		t.Fatalf("what was offered before was forgotten: %v", err)
	}
	if st := s.dev.Status(); st.Versions["root"] != 3 || st.Versions["timestamp"] != w.Version("timestamp") {
		t.Errorf("status %+v", st)
	}
}

// Anybody who owns the broker can make up a root ahead of the chain. A bad
// signature may then be that of keys to come, but not for long.
func TestForgedRootAheadDoesNotSilenceABadSignature(t *testing.T) {
	s := newStory(t)
	thief := signers(repo.Key(t))
	forged := repo.Resign(t, s.Root(), thief, func(f repo.Fields) { f["version"] = 5 })
	if err := s.dev.OfferRole("root", 5, forged); err != nil {
		t.Fatal(err)
	}
	bad := s.two.Clone()
	bad.Keys["timestamp"] = thief
	bad.SealTimestamp()
	err := s.dev.take(bad)
	if m, ok := errors.AsType[*trust.MissingError](err); !ok || m.Role != "root" || m.Version != 2 || trust.Reason(err) != wire.ReasonNone {
		t.Fatalf("at first answered %v, want a wait for root 2 alone", err)
	}
	s.dev.up += 2 * time.Minute
	err = s.dev.Refresh()
	if _, ok := errors.AsType[*trust.MissingError](err); !ok || !errors.Is(err, trust.ErrSignature) || trust.Reason(err) != wire.ReasonSignature {
		t.Fatalf("later answered %v, want the bad signature and the wait", err)
	}
	s.dev.mustTake(s.two)
}

// A device that was away for years needs roots that it had no room for.
func TestRootsBeyondTheLimitAreAskedFor(t *testing.T) {
	s := newStory(t)
	rotate(t, s, trust.MaxRotations)
	next := publish.Keys{"timestamp": signers(repo.Key(t)), "snapshot": signers(repo.Key(t))}
	if err := publish.RotateRoot(t.Context(), s, s.Keys["root"], next, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	s.Keys["timestamp"], s.Keys["snapshot"] = next["timestamp"], next["snapshot"]
	s.Pass(time.Minute)
	w := s.Publish()
	m, ok := errors.AsType[*trust.MissingError](s.dev.take(w))
	if !ok || m.Role != "root" || m.Version != trust.MaxRotations+2 {
		t.Fatalf("answered %v, want a wait for root %d", m, trust.MaxRotations+2)
	}
	if err := s.dev.OfferRole("root", m.Version, w.Roots[m.Version-1].Raw); err != nil {
		t.Fatal(err)
	}
	if err := s.dev.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got := s.dev.Status().Versions["timestamp"]; got != w.Version("timestamp") {
		t.Errorf("timestamp %d, want %d", got, w.Version("timestamp"))
	}
}

// The publication may come long before the root that makes it valid.
func TestCurrentRefusedUnderTheOldRootIsTriedUnderTheNew(t *testing.T) {
	s := newStory(t)
	next := publish.Keys{"timestamp": signers(repo.Key(t)), "snapshot": signers(repo.Key(t))}
	if err := publish.RotateRoot(t.Context(), s, s.Keys["root"], next, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	s.Keys["timestamp"], s.Keys["snapshot"] = next["timestamp"], next["snapshot"]
	s.Pass(time.Minute)
	w := s.Publish()
	roots := w.Roots
	w.Roots = nil
	if err := s.dev.take(w); !errors.Is(err, trust.ErrSignature) {
		t.Fatalf("under the old root: %v", err)
	}
	if err := s.dev.Refresh(); err != nil {
		t.Errorf("refused once, reported again: %v", err)
	}
	if err := s.dev.OfferRole("root", 2, roots[1].Raw); err != nil {
		t.Fatal(err)
	}
	if err := s.dev.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got := s.dev.Status().Versions["timestamp"]; got != w.Version("timestamp") {
		t.Errorf("timestamp %d, want %d", got, w.Version("timestamp"))
	}
}

func TestAttacksOnRoot(t *testing.T) {
	for _, a := range []struct {
		name string
		sign func(s *story, old, next crypto.Signer) []crypto.Signer
		edit func(f repo.Fields)
		want error
	}{
		{"signed by the new key alone", func(_ *story, _, next crypto.Signer) []crypto.Signer { return signers(next) }, nil, trust.ErrSignature},
		{"signed by the old key alone", func(_ *story, old, _ crypto.Signer) []crypto.Signer { return signers(old) }, nil, trust.ErrSignature},
		{"signed by nobody", func(*story, crypto.Signer, crypto.Signer) []crypto.Signer { return nil }, nil, trust.ErrSignature},
		{"signed with all keys of the hub", func(s *story, _, _ crypto.Signer) []crypto.Signer {
			return signers(s.Keys["timestamp"][0], s.Keys["snapshot"][0], s.Keys["rollouts"][0])
		}, nil, trust.ErrSignature},
		{"without keys for a role", func(_ *story, old, next crypto.Signer) []crypto.Signer { return signers(old, next) }, func(f repo.Fields) {
			f["roles"].(map[string]any)["timestamp"] = map[string]any{"keyids": []any{}, "threshold": 1}
		}, trust.ErrMalformed},
		{"without a role", func(_ *story, old, next crypto.Signer) []crypto.Signer { return signers(old, next) }, func(f repo.Fields) {
			delete(f["roles"].(map[string]any), "snapshot")
		}, trust.ErrMalformed},
	} {
		t.Run(a.name, func(t *testing.T) {
			s := newStory(t)
			old := s.Keys["root"][0]
			good := rotate(t, s, 1)
			bad := repo.Resign(t, good.Roots[1].Raw, a.sign(s, old, s.Keys["root"][0]), a.edit)
			if err := s.dev.OfferRole("root", 2, bad); err != nil {
				t.Fatal(err)
			}
			if err := s.dev.Refresh(); !errors.Is(err, a.want) {
				t.Errorf("answered %v, want %v", err, a.want)
			}
			// In front of the good one it does no harm either.
			if err := s.dev.OfferRole("root", 2, bad); err != nil {
				t.Fatal(err)
			}
			s.dev.mustTake(good)
			if got := s.dev.Status().Versions["root"]; got != 2 {
				t.Errorf("root version %d, want 2", got)
			}
		})
	}
	t.Run("a version left out", func(t *testing.T) {
		s := newStory(t)
		old := s.Keys["root"][0]
		good := rotate(t, s, 1)
		third := repo.Resign(t, good.Roots[1].Raw, signers(old, s.Keys["root"][0]), func(f repo.Fields) { f["version"] = 3 })
		if err := s.dev.OfferRole("root", 2, third); !errors.Is(err, trust.ErrVersionSkip) {
			t.Errorf("version 3 offered as 2: %v", err)
		}
		if err := errors.Join(s.dev.OfferRole("root", 3, third), s.dev.Refresh()); err != nil {
			t.Errorf("version 3 offered as 3: %v", err)
		}
		if got := s.dev.Status().Versions["root"]; got != 1 {
			t.Errorf("root version %d, want 1", got)
		}
	})
}

func TestStoredRootIsNotReplacedByTheGivenOne(t *testing.T) {
	s := newStory(t)
	s.dev.mustTake(rotate(t, s, 2))
	digest := s.dev.Status().Root
	s.dev.root = repo.New(t).Root()
	s.dev.restart()
	if got := s.dev.Status(); got.Root != digest || got.Versions["root"] != 3 {
		t.Errorf("root %s version %d", got.Root, got.Versions["root"])
	}
}

// Only the first root is left: the chain is walked again before anything is
// accepted, so that keys which were taken away stay away.
func TestLostRootIsWalkedUpAgain(t *testing.T) {
	s := newStory(t)
	next := publish.Keys{"timestamp": signers(repo.Key(t))}
	stolen := s.Keys["timestamp"]
	s.Pass(time.Minute)
	if err := publish.RotateRoot(t.Context(), s, s.Keys["root"], next, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	s.Keys["timestamp"] = next["timestamp"]
	w := s.Publish()
	s.dev.mustTake(w)

	files, floor, _ := s.dev.store.LoadTrust()
	delete(files, "root")
	if err := s.dev.store.SaveTrust(files, floor); err != nil {
		t.Fatal(err)
	}
	s.dev.restart()
	forged := w.Clone()
	forged.Roots, forged.Keys["timestamp"] = nil, stolen
	forged.Bump("timestamp")
	err := s.dev.take(forged)
	if m, ok := errors.AsType[*trust.MissingError](err); !ok || m.Role != "root" || m.Version != 2 {
		t.Fatalf("a timestamp by the old key, with root 1: %v", err)
	}
	if err := w.Offer(s.dev); err != nil {
		t.Fatal(err)
	}
	if err := s.dev.Refresh(); err != nil {
		t.Fatal(err)
	}
	if got := s.dev.Status(); got.Versions["root"] != 2 || got.Versions["timestamp"] != w.Version("timestamp") {
		t.Errorf("status %+v", got)
	}
}

// Also what is stored counts for nothing before the chain is walked up.
func TestLostRootSuspendsTheStoredWorld(t *testing.T) {
	s := newStory(t)
	w := rotate(t, s, 1) // the keys of the hub stay
	s.dev.mustTake(w)
	files, floor, _ := s.dev.store.LoadTrust()
	delete(files, "root")
	if err := s.dev.store.SaveTrust(files, floor); err != nil {
		t.Fatal(err)
	}
	s.dev.restart()
	if st := s.dev.Status(); st.Fresh || s.dev.choice() != "" {
		t.Errorf("status %+v", st)
	}
	if err := errors.Join(s.dev.OfferRole("root", 2, w.Roots[1].Raw), s.dev.Refresh()); err != nil {
		t.Fatal(err)
	}
	if st := s.dev.Status(); !st.Fresh || s.dev.choice() != "release/gate/2" {
		t.Errorf("after the root came again: %+v", st)
	}
}

func TestRootIsKeptEvenIfTheRestIsRefused(t *testing.T) {
	s := newStory(t)
	w := rotate(t, s, 1)
	w.Raw["timestamp"] = bytes.Replace(w.Raw["timestamp"], []byte(`"sig":"`), []byte(`"sig":"00`), 1)
	if err := s.dev.take(w); !errors.Is(err, trust.ErrSignature) {
		t.Fatal(err)
	}
	s.dev.restart()
	if got := s.dev.Status(); got.Versions["root"] != 2 || s.dev.choice() != "release/gate/1" {
		t.Errorf("status %+v", got)
	}
}
