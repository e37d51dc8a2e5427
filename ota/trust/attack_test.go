package trust_test

import (
	"bytes"
	"crypto"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// signers is what the attacker signs with.
func signers(s ...crypto.Signer) []crypto.Signer { return s }

// roleEntry reads a delegation out of the signed part of targets.
func roleEntry(f repo.Fields, i int) repo.Fields {
	return f["delegations"].(map[string]any)["roles"].([]any)[i].(map[string]any)
}

// The table of attacks: each alters the newer of two honest worlds, in the way
// and with the keys that its name says. Whatever the device answers, it goes on
// trusting what it had, and takes an honest world that comes later.
func TestAttacks(t *testing.T) {
	stranger := repo.Key(t)
	attacks := []struct {
		name string
		do   func(s *story) *repo.World
		want error
	}{
		{"broker drops the timestamp's signature", func(s *story) *repo.World {
			s.two.Keys["timestamp"] = nil
			return s.two.Edit("timestamp", nil)
		}, trust.ErrSignature},
		{"broker signs the timestamp itself", func(s *story) *repo.World {
			s.two.Keys["timestamp"] = signers(stranger)
			return s.two.Edit("timestamp", nil)
		}, trust.ErrSignature},
		{"broker alters a signed number", func(s *story) *repo.World {
			s.two.Raw["timestamp"] = bytes.Replace(s.two.Raw["timestamp"], []byte(`"version":2`), []byte(`"version":3`), 1)
			return s.two
		}, trust.ErrSignature},
		{"broker puts a stranger's key id over a good signature", func(s *story) *repo.World {
			id := repo.KeyID(t, s.Keys["timestamp"][0])
			s.two.Raw["timestamp"] = bytes.Replace(s.two.Raw["timestamp"], []byte(id), []byte(repo.KeyID(t, stranger)), 1)
			return s.two
		}, trust.ErrSignature},
		{"broker repeats a signature to reach a threshold", func(s *story) *repo.World {
			k := s.Keys["timestamp"][0]
			s.two.Keys["timestamp"] = signers(k, k)
			return s.two.Edit("timestamp", nil)
		}, trust.ErrMalformed},
		{"broker shows a snapshot as timestamp", func(s *story) *repo.World {
			s.two.Raw["timestamp"] = s.two.Raw["snapshot"]
			return s.two
		}, trust.ErrMalformed},
		{"broker mixes timestamp and snapshot of two publications", func(s *story) *repo.World {
			s.two.Raw["snapshot"] = s.one.Raw["snapshot"]
			return s.two
		}, trust.ErrDigest},
		{"broker mixes in other models under the same version", func(s *story) *repo.World {
			return s.two.Edit("models", func(f repo.Fields) { f["x"] = "y" }) // not sealed
		}, trust.ErrDigest},
		{"broker mixes in rollouts of an older publication under the new number", func(s *story) *repo.World {
			old := s.one.Clone()
			s.two.Raw["rollouts"] = old.Bump("rollouts").Raw["rollouts"]
			return s.two
		}, trust.ErrDigest},

		{"timestamp key stolen: snapshot signed by a stranger", func(s *story) *repo.World {
			s.two.Keys["snapshot"] = signers(stranger)
			return s.two.Bump("snapshot").SealTimestamp()
		}, trust.ErrSignature},
		{"timestamp key stolen: it names the snapshot of before", func(s *story) *repo.World {
			w := s.one.Clone()
			w.Edit("timestamp", func(f repo.Fields) { f["version"] = s.two.Version("timestamp") + 1 })
			s.dev.mustTake(s.two)
			return w.SealTimestamp()
		}, trust.ErrRollback},
		{"timestamp key stolen: time after the root's end", func(s *story) *repo.World {
			return s.two.Edit("timestamp", func(f repo.Fields) {
				f["version"] = repo.Start().AddDate(1, 0, 1).Unix()
				f["expires"] = "2099-01-01T00:00:00Z"
			})
		}, trust.ErrVersionSkip},
		{"timestamp key stolen: the largest number there is", func(s *story) *repo.World {
			return s.two.Edit("timestamp", func(f repo.Fields) { f["version"] = int64(1<<63 - 1) })
		}, trust.ErrVersionSkip},

		{"hub stolen: models without a signature", func(s *story) *repo.World {
			s.two.Keys["models"] = nil
			return s.two.Bump("models").Seal()
		}, trust.ErrSignature},
		{"hub stolen: models signed by a stranger", func(s *story) *repo.World {
			s.two.Keys["models"] = signers(stranger)
			return s.two.Bump("models").Seal()
		}, trust.ErrSignature},
		{"hub stolen: models signed with the rollouts key", func(s *story) *repo.World {
			s.two.Keys["models"] = s.Keys["rollouts"]
			return s.two.Bump("models").Seal()
		}, trust.ErrSignature},
		{"hub stolen: rollouts metadata shown as models", func(s *story) *repo.World {
			s.two.Raw["models"] = s.two.Raw["rollouts"]
			return s.two.Seal()
		}, trust.ErrSignature},
		{"hub stolen: targets signed with hub keys", func(s *story) *repo.World {
			s.two.Keys["targets"] = signers(s.Keys["rollouts"][0], s.Keys["snapshot"][0])
			return s.two.Bump("targets").Seal()
		}, trust.ErrSignature},
		{"hub stolen: snapshot lists older models", func(s *story) *repo.World {
			s.dev.mustTake(s.two)
			w := s.two.Clone()
			w.Raw["models"] = s.one.Raw["models"]
			return w.Bump("snapshot").Bump("timestamp").Seal()
		}, trust.ErrRollback},
		{"hub stolen: snapshot with a lower number", func(s *story) *repo.World {
			s.dev.mustTake(s.two)
			w := s.two.Clone()
			w.Edit("snapshot", func(f repo.Fields) { f["version"] = int64(1) })
			return w.Bump("timestamp").Seal()
		}, trust.ErrRollback},
		{"hub stolen: snapshot does not list models", func(s *story) *repo.World {
			return s.two.Edit("snapshot", func(f repo.Fields) { delete(f["meta"].(map[string]any), "models.json") }).SealTimestamp()
		}, trust.ErrMalformed},
		{"hub stolen: snapshot lists no digest", func(s *story) *repo.World {
			return s.two.Edit("snapshot", func(f repo.Fields) {
				delete(f["meta"].(map[string]any)["models.json"].(map[string]any), "hashes")
			}).SealTimestamp()
		}, trust.ErrMalformed},
		{"hub stolen: null where the library looks", func(s *story) *repo.World {
			return s.two.Edit("rollouts", func(f repo.Fields) { f["targets"] = map[string]any{"rollout/x": nil} }).Seal()
		}, trust.ErrMalformed},
		{"hub stolen: more plans than allowed", func(s *story) *repo.World {
			return s.two.Edit("rollouts", func(f repo.Fields) {
				targets := f["targets"].(map[string]any)
				for i := range 65 {
					targets["rollout/"+strings.Repeat("x", i+1)] = targets["rollout/second"]
				}
			}).Seal()
		}, trust.ErrMalformed},

		{"replay of the world before", func(s *story) *repo.World {
			s.dev.mustTake(s.two)
			return s.one
		}, trust.ErrRollback},
		{"replay of the world before, which has expired since", func(s *story) *repo.World {
			s.Pass(30 * time.Hour)
			s.dev.mustTake(s.Publish())
			return s.one
		}, trust.ErrRollback},
		{"freeze: the same world for days", func(s *story) *repo.World {
			s.dev.up += 25 * time.Hour
			return s.one
		}, trust.ErrExpired},

		{"expired timestamp", func(s *story) *repo.World {
			return s.two.Expire("timestamp", s.Time.Add(-time.Minute))
		}, trust.ErrExpired},
		{"expired snapshot", func(s *story) *repo.World {
			return s.two.Expire("snapshot", s.Time.Add(-time.Minute)).SealTimestamp()
		}, trust.ErrExpired},
		{"expired models", func(s *story) *repo.World {
			return s.two.Expire("models", s.Time.Add(-time.Minute)).Seal()
		}, trust.ErrExpired},
		{"expired rollouts", func(s *story) *repo.World {
			return s.two.Expire("rollouts", s.Time.Add(-time.Minute)).Seal()
		}, trust.ErrExpired},
		{"expired targets", func(s *story) *repo.World {
			return s.two.Expire("targets", s.Time.Add(-time.Minute)).Seal()
		}, trust.ErrExpired},
		{"expired root", func(s *story) *repo.World {
			s.dev.up += 366 * 24 * time.Hour
			return s.two
		}, trust.ErrExpired},

		{"targets key stolen: no delegation", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) { delete(f, "delegations") }).Seal()
		}, trust.ErrMalformed},
		{"targets key stolen: a third delegation", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) {
				d := f["delegations"].(map[string]any)
				third := maps.Clone(roleEntry(f, 0))
				third["name"] = "third"
				d["roles"] = append(d["roles"].([]any), third)
			}).Seal()
		}, trust.ErrMalformed},
		{"targets key stolen: rollouts may sign releases too", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) { roleEntry(f, 1)["paths"] = []any{"rollout/*", "release/*/*"} }).Seal()
		}, trust.ErrMalformed},
		{"targets key stolen: models stands twice", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) {
				d := f["delegations"].(map[string]any)
				d["roles"] = []any{roleEntry(f, 0), roleEntry(f, 0)}
			}).Seal()
		}, trust.ErrMalformed},
		{"targets key stolen: not terminating", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) { roleEntry(f, 0)["terminating"] = false }).Seal()
		}, trust.ErrMalformed},
		{"targets key stolen: hash bins", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) {
				roleEntry(f, 0)["path_hash_prefixes"] = []any{"0"}
			}).Seal()
		}, trust.ErrMalformed},
		{"targets key stolen: threshold nought", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) { roleEntry(f, 0)["threshold"] = 0 }).Seal()
		}, trust.ErrMalformed},
		{"targets key stolen: a key of another length", func(s *story) *repo.World {
			return s.two.Edit("targets", func(f repo.Fields) {
				for _, k := range f["delegations"].(map[string]any)["keys"].(map[string]any) {
					k.(map[string]any)["keyval"] = map[string]any{"public": "00ff"}
				}
			}).Seal()
		}, trust.ErrMalformed},
		{"models key stolen: it delegates further", func(s *story) *repo.World {
			return s.two.Edit("models", func(f repo.Fields) {
				f["delegations"] = map[string]any{"keys": map[string]any{}, "roles": []any{}}
			}).Seal()
		}, trust.ErrMalformed},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			s := newStory(t)
			w := a.do(s)
			before := s.dev.Status()
			err := s.dev.take(w)
			if !errors.Is(err, a.want) {
				t.Fatalf("answered %v, want %v", err, a.want)
			}
			if after := s.dev.Status(); !maps.Equal(before.Versions, after.Versions) {
				t.Errorf("trusted %v before and %v after", before.Versions, after.Versions)
			}
			s.Pass(s.dev.up - 2*time.Hour) // the hub's clock keeps up with the device's
			s.Pass(time.Minute)
			renew(t, s)
			s.dev.mustTake(s.Publish())
		})
	}
}

// renew signs again whatever a long time may have ended, root included.
func renew(t *testing.T, s *story) {
	t.Helper()
	ctx := t.Context()
	if err := publish.RotateRoot(ctx, s, s.Keys["root"], nil, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	if err := publish.Delegate(ctx, s, s.Keys["targets"], s.Keys, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"models", "rollouts"} {
		if err := publish.Resign(ctx, s, role, s.Keys[role], s.Time); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadShapesAreRefusedAtTheDoor(t *testing.T) {
	s := newStory(t)
	models := s.two.Raw["models"]
	big := append(bytes.Clone(models), bytes.Repeat([]byte(" "), 96<<10)...)
	deep := repo.Resign(t, models, nil, func(f repo.Fields) {
		for range 40 {
			f["deep"] = map[string]any{"a": f["deep"]}
			if f["deep"].(map[string]any)["a"] == nil {
				f["deep"] = "bottom"
			}
		}
	})
	for _, c := range []struct {
		name    string
		role    string
		version int64
		raw     []byte
		want    error
	}{
		{"cut short", "models", 3, models[:len(models)/2], trust.ErrMalformed},
		{"not JSON", "models", 3, []byte("\x00\x01\x02"), trust.ErrMalformed},
		{"too large", "models", 3, big, trust.ErrMalformed},
		{"too deep", "models", 3, deep, trust.ErrMalformed},
		{"null", "models", 3, []byte("null"), trust.ErrMalformed},
		{"no signed part", "models", 3, []byte(`{"signatures":[]}`), trust.ErrMalformed},
		{"another role", "models", 3, s.two.Raw["snapshot"], trust.ErrMalformed},
		{"an unknown role", "mirrors", 3, models, trust.ErrMalformed},
		{"snapshot by itself", "snapshot", 3, s.two.Raw["snapshot"], trust.ErrMalformed},
		{"another number than the topic's", "models", 4, models, trust.ErrVersionSkip},
		{"a cleared topic", "models", 3, nil, nil},
	} {
		if err := s.dev.OfferRole(c.role, c.version, c.raw); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for name, b := range map[string][]byte{
		"not JSON": []byte("x"), "another version": []byte(`{"v":2}`), "no version": []byte(`{}`), "empty parts": []byte(`{"v":1}`),
		"too large": bytes.Repeat([]byte(" "), 16<<10+1),
	} {
		if err := s.dev.OfferCurrent(b); !errors.Is(err, trust.ErrMalformed) {
			t.Errorf("current, %s: %v", name, err)
		}
	}
	if err := s.dev.OfferCurrent(nil); err != nil {
		t.Errorf("a cleared topic: %v", err)
	}
}

func TestPlansOfAStolenHub(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(targets, second map[string]any)
		want error
	}{
		{"names a release that nobody signed", func(_, p map[string]any) {
			p["custom"].(map[string]any)["release"] = "release/gate/9"
		}, trust.ErrSignature},
		{"names other bytes for a signed release", func(_, p map[string]any) {
			p["hashes"] = map[string]any{"sha256": strings.Repeat("ab", 32)}
		}, trust.ErrDigest},
		{"names another length", func(_, p map[string]any) { p["length"] = 1 }, trust.ErrDigest},
	} {
		s := newStory(t)
		s.two.Edit("rollouts", func(f repo.Fields) {
			targets := f["targets"].(map[string]any)
			c.edit(targets, targets["rollout/second"].(map[string]any))
		}).Seal()
		s.dev.mustTake(s.two)
		if o, err := s.dev.Select("cam-1", nil); o != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v %v, want %v", c.name, o, err, c.want)
		}
	}
}

// The owner signed one file under the name of another.
func TestReleaseThatIsNotWhatItsPathSays(t *testing.T) {
	s := newStory(t)
	s.two.Edit("models", func(f repo.Fields) {
		targets := f["targets"].(map[string]any)
		targets["release/gate/2"] = targets["release/gate/1"]
	}).Edit("rollouts", func(f repo.Fields) {
		p := f["targets"].(map[string]any)["rollout/second"].(map[string]any)
		one := wire.NewBlobRef(s.Manifests["release/gate/1"])
		p["length"], p["hashes"] = one.Size, map[string]any{"sha256": one.Digest}
	}).Seal()
	s.dev.mustTake(s.two)
	o, err := s.dev.Select("cam-1", nil)
	if err != nil || o == nil {
		t.Fatal(o, err)
	}
	if _, err := o.Verify(s.Manifests["release/gate/1"]); !errors.Is(err, trust.ErrMalformed) {
		t.Errorf("answered %v", err)
	}
}

func TestUnreadablePlanDoesNotHideTheOthers(t *testing.T) {
	for name, edit := range map[string]func(plan map[string]any){
		"a condition of a newer drover": func(p map[string]any) { p["only_at_night"] = true },
		"another version":               func(p map[string]any) { p["v"] = 2 },
		"another id":                    func(p map[string]any) { p["id"] = "third" },
		"a serial below one":            func(p map[string]any) { p["serial"] = 0 },
	} {
		s := newStory(t)
		s.SetPlans(repo.Plan("good", 7, "release/gate/1"), repo.Plan("odd", 8, "release/gate/2"))
		s.Pass(time.Minute)
		w := s.Publish()
		w.Edit("rollouts", func(f repo.Fields) {
			edit(f["targets"].(map[string]any)["rollout/odd"].(map[string]any)["custom"].(map[string]any))
		}).Seal()
		s.dev.mustTake(w)
		if got := s.dev.choice(); got != "release/gate/1" {
			t.Errorf("%s: selected %q", name, got)
		}
	}
}

// A threshold of two: one thief is not enough, whatever he repeats.
func TestThreshold(t *testing.T) {
	keys, err := publish.Generate()
	if err != nil {
		t.Fatal(err)
	}
	second := repo.Key(t)
	keys["models"] = append(keys["models"], second)
	s := storyOf(t, repo.NewWith(t, keys, publish.InitOptions{Thresholds: map[string]int{"models": 2}}))
	s.two.Keys["models"] = signers(second)
	if err := s.dev.take(s.two.Bump("models").Seal()); !errors.Is(err, trust.ErrSignature) {
		t.Errorf("one of two: %v", err)
	}
	s.two.Keys["models"] = keys["models"]
	s.dev.mustTake(s.two.Bump("models").Bump("snapshot").Bump("timestamp").Seal())
}
