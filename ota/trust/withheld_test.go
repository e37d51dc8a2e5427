package trust_test

import (
	"errors"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// The hub was stolen, the owner exchanged its keys, and whoever has broker and
// old keys holds the new root back. He goes on until the old root ends, which
// is not his to move, and no longer; then the withheld root ends his time.
func TestWithheldRootHelpsUntilTheOldOneEnds(t *testing.T) {
	s := newStory(t)
	stolen := s.two.Clone()
	end := repo.Start().AddDate(1, 0, 0)
	next := publish.Keys{"timestamp": signers(repo.Key(t)), "snapshot": signers(repo.Key(t)), "rollouts": signers(repo.Key(t))}
	if err := publish.RotateRoot(t.Context(), s, s.Keys["root"], publish.Keys{"timestamp": next["timestamp"], "snapshot": next["snapshot"]}, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	s.Keys["timestamp"], s.Keys["snapshot"] = next["timestamp"], next["snapshot"]

	at := func(when time.Time) *repo.World { // what the thief can sign for a time
		w := stolen.Clone().Expire("rollouts", when.AddDate(1, 0, 0)).Expire("snapshot", when.AddDate(1, 0, 0)).Seal()
		return w.Edit("timestamp", func(f repo.Fields) {
			f["version"], f["expires"] = when.Unix(), when.AddDate(1, 0, 0).UTC().Format(time.RFC3339)
		})
	}
	s.dev.mustTake(at(s.Time.AddDate(0, 0, 3))) // not defended: he still rules
	if err := s.dev.take(at(end.AddDate(0, 1, 0))); err == nil {
		t.Fatal("a time after the root's end was taken")
	}
	s.dev.up += end.Sub(s.Time) + 24*time.Hour
	late := at(end.Add(-time.Hour))
	if err := s.dev.take(late); !errors.Is(err, trust.ErrExpired) {
		t.Fatalf("after the root's end: %v", err)
	}
	if _, err := s.dev.Select("cam-1", nil); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("after the root's end still selects: %v", err)
	}
	root, err := s.Get(t.Context(), "root", 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.dev.OfferRole("root", 2, root); err != nil {
		t.Fatal(err)
	}
	if err := s.dev.Refresh(); !errors.Is(err, trust.ErrSignature) {
		t.Errorf("the thief under the new root: %v", err)
	}
	if got := s.dev.Status().Versions; got["root"] != 2 || got["timestamp"] != 0 {
		t.Errorf("under the new root trusts %v", got)
	}
}

// A rollout halts before a wave that this device belongs to, and the halt is
// held back: nothing widens, because each wave is a plan of its own.
func TestWithheldHaltWidensNothing(t *testing.T) {
	s := newStory(t)
	s.dev.mustTake(s.two)
	first := repo.Plan("third", 3, s.Release("gate", 3))
	first.Selector = wire.Selector{Devices: []string{"cam-2"}}
	s.Pass(time.Minute)
	s.SetPlans(repo.Plan("second", 2, "release/gate/2"), first)
	open := s.Publish()
	s.dev.mustTake(open)
	s.Pass(time.Minute)
	s.SetPlans(repo.Plan("second", 2, "release/gate/2")) // the halt, which never comes
	s.Publish()
	for range 10 {
		s.dev.up += time.Hour
		if err := s.dev.take(open); err != nil {
			t.Fatal(err)
		}
		if got := s.dev.choice(); got != "release/gate/2" {
			t.Fatalf("selected %q", got)
		}
	}
}
