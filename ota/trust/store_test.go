package trust_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

func TestHealsFromDamage(t *testing.T) {
	roles := []string{"root", "timestamp", "snapshot", "targets", "models", "rollouts"}
	damages := map[string]func(files map[string][]byte, role string){
		"missing": func(f map[string][]byte, role string) { delete(f, role) },
		"empty":   func(f map[string][]byte, role string) { f[role] = []byte{} },
		"cut":     func(f map[string][]byte, role string) { f[role] = f[role][:len(f[role])/2] },
		"zeroed":  func(f map[string][]byte, role string) { f[role] = make([]byte, len(f[role])) },
		"a bit": func(f map[string][]byte, role string) {
			f[role] = bytes.Clone(f[role])
			f[role][bytes.Index(f[role], []byte(`"sig":"`))+10] ^= 1
		},
	}
	for name, damage := range damages {
		for _, role := range append(roles, "all") {
			t.Run(name+" "+role, func(t *testing.T) {
				s := newStory(t)
				s.dev.mustTake(s.two)
				files, floor, _ := s.dev.store.LoadTrust()
				hit := []string{role}
				if role == "all" {
					hit = roles
				}
				for _, r := range hit {
					damage(files, r)
				}
				if err := s.dev.store.SaveTrust(files, floor); err != nil {
					t.Fatal(err)
				}
				s.dev.restart()
				// The older world is refused. Its targets, which are those of
				// the newer one, may heal that.
				err := s.dev.take(s.one)
				got, here := s.dev.Status().Versions["timestamp"]
				if here && got != s.two.Version("timestamp") || !here && !errors.Is(err, trust.ErrRollback) {
					t.Fatalf("timestamp %d after damage and the older world: %v", got, err)
				}
				// The same publication again heals, without a newer one.
				s.dev.mustTake(s.two)
				if got := s.dev.choice(); got != "release/gate/2" {
					t.Errorf("selected %q", got)
				}
				s.dev.restart()
				if !s.dev.Status().Fresh {
					t.Error("not healed for good")
				}
			})
		}
	}
}

// What survived is not asked for again.
func TestOnlyTheDamagedPartIsAskedForAgain(t *testing.T) {
	s := newStory(t)
	files, floor, _ := s.dev.store.LoadTrust()
	delete(files, "models")
	if err := s.dev.store.SaveTrust(files, floor); err != nil {
		t.Fatal(err)
	}
	s.dev.restart()
	err := s.dev.Refresh()
	m, ok := errors.AsType[*trust.MissingError](err)
	if !ok || m.Role != "models" || m.Version != s.one.Version("models") {
		t.Fatalf("answered %v", err)
	}
	if err := errors.Join(s.dev.OfferRole("models", m.Version, s.one.Raw["models"]), s.dev.Refresh()); err != nil {
		t.Fatal(err)
	}
	if got := s.dev.choice(); got != "release/gate/1" {
		t.Errorf("selected %q", got)
	}
}

func TestLostFloorIsTakenFromTheMetadata(t *testing.T) {
	for name, floor := range map[string][]byte{"missing": nil, "junk": []byte("{"), "of another version": []byte(`{"v":9}`)} {
		s := newStory(t)
		s.dev.mustTake(s.two)
		files, _, _ := s.dev.store.LoadTrust()
		if err := s.dev.store.SaveTrust(files, floor); err != nil {
			t.Fatal(err)
		}
		s.dev.restart()
		if got := s.dev.Status(); got.RefTime.Unix() < s.two.Version("timestamp") {
			t.Errorf("%s: the clock fell to %v", name, got.RefTime)
		}
		if err := s.dev.take(s.one); !errors.Is(err, trust.ErrRollback) {
			t.Errorf("%s: the older world: %v", name, err)
		}
	}
}

func TestFullDisk(t *testing.T) {
	s := newStory(t)
	before := s.dev.Status()
	s.dev.store.fail = fmt.Errorf("write trust: %w", syscall.ENOSPC)
	for range 2 {
		err := s.dev.take(s.two)
		if !errors.Is(err, trust.ErrStore) || !errors.Is(err, syscall.ENOSPC) || trust.Reason(err) != wire.ReasonSpace {
			t.Fatalf("answered %v, reason %q", err, trust.Reason(err))
		}
	}
	if got := s.dev.Status(); !maps.Equal(got.Versions, before.Versions) {
		t.Errorf("trusted %v, saved was %v", got.Versions, before.Versions)
	}
	w := rotate(t, s, 1)
	if err := s.dev.take(w); !errors.Is(err, trust.ErrStore) {
		t.Fatalf("root on a full disk: %v", err)
	}
	if got := s.dev.Status(); !maps.Equal(got.Versions, before.Versions) {
		t.Errorf("trusted %v, saved was %v", got.Versions, before.Versions)
	}
	s.dev.store.fail = nil
	if err := s.dev.Refresh(); err != nil { // with what was offered while it was full
		t.Fatal(err)
	}
	if got := s.dev.Status().Versions; got["root"] != 2 || got["timestamp"] != w.Version("timestamp") {
		t.Errorf("trusted %v", got)
	}
}

func TestStoreThatCannotBeRead(t *testing.T) {
	if _, err := trust.Open(trust.Options{Store: brokenStore{new(trust.Memory)}, Root: repo.New(t).Root()}); !errors.Is(err, trust.ErrStore) {
		t.Error(err)
	}
}

type brokenStore struct{ *trust.Memory }

func (brokenStore) LoadTrust() (map[string][]byte, []byte, error) { return nil, nil, syscall.EIO }

// A flood of offers takes bounded memory and hides neither what a verified
// snapshot waits for nor a publication that comes later.
func TestFloodOfOffers(t *testing.T) {
	s := newStory(t)
	s.two.Withhold = []string{"models"}
	if err := s.dev.take(s.two); err == nil {
		t.Fatal("not waiting")
	}
	if err := s.dev.OfferRole("models", s.two.Version("models"), s.two.Raw["models"]); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	pad := string(bytes.Repeat([]byte("x"), 60<<10))
	junk := s.two.Clone()
	snapshot := append(bytes.Clone(s.two.Raw["snapshot"]), bytes.Repeat([]byte(" "), wire.MaxSnapshot-len(s.two.Raw["snapshot"]))...)
	for i := range int64(200) {
		for role, raw := range map[string][]byte{"models": s.two.Raw["models"], "rollouts": s.two.Raw["rollouts"], "targets": s.two.Raw["targets"], "root": s.Root()} {
			b := repo.Resign(t, raw, nil, func(f repo.Fields) { f["version"], f["pad"] = 100+i, pad })
			if role == "root" {
				b = repo.Resign(t, raw, nil, func(f repo.Fields) { f["version"], f["pad"] = 2+i, pad[:50<<10] })
			}
			if err := s.dev.OfferRole(role, headOf(role, i), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 1500 {
		junk.Raw["timestamp"] = append(bytes.Clone(s.one.Raw["timestamp"]), bytes.Repeat([]byte(" "), i)...)
		junk.Raw["snapshot"] = snapshot
		if err := s.dev.OfferCurrent(junk.Current()); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 6<<20 {
		t.Errorf("the flood keeps %d bytes", grown)
	}
	// The flood pushed the waiting publication out; the broker shows it again.
	// Its parts had their place.
	err := errors.Join(s.dev.OfferCurrent(s.two.Current()), s.dev.Refresh())
	if got := s.dev.choice(); got != "release/gate/2" {
		t.Errorf("selected %q after the flood: %v", got, err)
	}
}

func headOf(role string, i int64) int64 {
	if role == "root" {
		return 2 + i
	}
	return 100 + i
}

func TestConcurrentUse(t *testing.T) {
	s := newStory(t)
	worlds := []*repo.World{s.one, s.two}
	for range 3 {
		s.Pass(time.Minute)
		worlds = append(worlds, s.Publish())
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, w := range worlds {
				_ = w.Offer(s.dev)
				_ = s.dev.Refresh()
				s.dev.Status()
				_, _ = s.dev.Select("cam-1", nil)
			}
		})
	}
	wg.Wait()
	if got, want := s.dev.Status().Versions["timestamp"], worlds[4].Version("timestamp"); got != want {
		t.Errorf("timestamp %d, want %d", got, want)
	}
}
