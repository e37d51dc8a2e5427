package trust_test

import (
	"encoding/json"
	"maps"
	"testing"

	"github.com/droverhq/drover/test/repo"
)

// Bytes from the broker: nothing that is not signed changes what is trusted.
func FuzzOfferCurrent(f *testing.F) {
	s := newStory(f)
	for _, b := range [][]byte{s.one.Current(), s.two.Current(), s.two.Current()[:200], []byte(`{"v":1,"timestamp":"e30=","snapshot":"e30="}`)} {
		if len(b) == 0 {
			f.Fatal("empty seed")
		}
		f.Add(b)
	}
	before := s.dev.Status().Versions
	f.Fuzz(func(t *testing.T, b []byte) {
		s.dev.t = t
		s.dev.restart()
		_ = s.dev.OfferCurrent(b)
		_ = s.dev.Refresh()
		if after := s.dev.Status().Versions; !maps.Equal(before, after) {
			t.Errorf("trusted %v before and %v after", before, after) // two lacks its parts
		}
	})
}

func FuzzOfferRole(f *testing.F) {
	s := newStory(f)
	w := rotate(f, s, 1)
	for role, raw := range map[string][]byte{
		"root": w.Roots[1].Raw, "targets": w.Raw["targets"], "models": w.Raw["models"], "rollouts": w.Raw["rollouts"],
	} {
		if len(raw) == 0 {
			f.Fatal("empty seed")
		}
		f.Add(role, int64(2), raw)
		f.Add(role, int64(3), raw[:len(raw)-10])
	}
	f.Fuzz(func(t *testing.T, role string, version int64, b []byte) {
		s.dev.t = t
		s.dev.restart()
		before := s.dev.Status().Versions
		_ = s.dev.OfferRole(role, version, b)
		_ = s.dev.Refresh()
		after := s.dev.Status().Versions
		before["root"], after["root"] = 0, 0 // a seed is a good root
		if !maps.Equal(before, after) {
			t.Errorf("trusted %v before and %v after", before, after)
		}
	})
}

// Any JSON, properly signed: a thief with keys gets a refusal, never a crash.
func FuzzSigned(f *testing.F) {
	s := newStory(f)
	for _, role := range []string{"targets", "models", "rollouts", "snapshot", "timestamp"} {
		var doc struct {
			Signed json.RawMessage `json:"signed"`
		}
		if err := json.Unmarshal(s.two.Raw[role], &doc); err != nil || len(doc.Signed) == 0 {
			f.Fatal("empty seed", err)
		}
		f.Add(role, []byte(doc.Signed))
	}
	f.Add("rollouts", []byte(`{"targets":{"rollout/a":null}}`))
	f.Add("targets", []byte(`{"delegations":{"keys":{},"roles":[{"name":"models"},{"name":"rollouts"}]}}`))
	f.Add("snapshot", []byte(`{"meta":{"models.json":{"version":1}}}`))
	f.Add("models", []byte(`{"targets":{"release/a/1":{"length":-1,"hashes":{"sha256":"00"},"custom":{}}}}`))
	f.Fuzz(func(t *testing.T, role string, b []byte) {
		w := s.two.In(t)
		var fields repo.Fields
		if w.Raw[role] == nil || json.Unmarshal(b, &fields) != nil {
			return
		}
		raw, err := repo.TryResign(w.Raw[role], w.Keys[role], func(f repo.Fields) { maps.Copy(f, fields) })
		if err != nil {
			return // canonical JSON has no fractions
		}
		w.Raw[role] = raw
		if role != "timestamp" && role != "snapshot" && !w.TrySeal() {
			return
		}
		if role == "snapshot" && !w.TrySealTimestamp() {
			return
		}
		s.dev.t = t
		s.dev.restart()
		saved, floor, _ := s.dev.store.LoadTrust()
		_ = w.Offer(s.dev)
		_ = s.dev.Refresh()
		_, _ = s.dev.Select("cam-1", map[string]string{"site": "north"})
		s.dev.Status()
		if err := s.dev.store.SaveTrust(saved, floor); err != nil {
			t.Fatal(err)
		}
	})
}
