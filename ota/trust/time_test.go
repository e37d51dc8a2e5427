package trust_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

func TestReferenceTime(t *testing.T) {
	s := newStory(t) // one was accepted at up = 1 h, now it is 2 h
	at := func(when string, want time.Time) {
		t.Helper()
		if got := s.dev.Status().RefTime; !got.Equal(want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	// Publications at one instant get following numbers, hence the second.
	signed := time.Unix(s.one.Version("timestamp"), 0)
	at("an hour after", signed.Add(time.Hour))
	s.dev.restart()
	at("the program restarted", signed.Add(time.Hour))
	s.dev.up -= 30 * time.Minute
	at("the clock from boot jumped back", signed.Add(30*time.Minute))
	s.dev.up = 0
	at("the clock from boot jumped to nought", signed)
	s.dev.up = 2 * time.Hour
	s.dev.reboot("boot-2")
	at("the machine rebooted", signed)
	s.dev.up += time.Minute
	at("a minute after the boot", signed.Add(time.Minute))
	s.dev.restart()
	at("the program restarted a minute after the boot", signed.Add(time.Minute))
	s.dev.mustTake(s.two)
	at("a newer timestamp", time.Unix(s.two.Version("timestamp"), 0))
}

func TestBuildTimeIsALeast(t *testing.T) {
	s := newStory(t)
	s.dev.build = s.Time.AddDate(0, 0, 2) // a program built after all of this expired
	s.dev.restart()
	if got := s.dev.Status(); !got.RefTime.Equal(s.dev.build) || got.Fresh {
		t.Errorf("status %+v", got)
	}
	s.dev.up += time.Hour
	if got := s.dev.Status(); !got.RefTime.Equal(s.dev.build.Add(time.Hour)) {
		t.Errorf("an hour later it is %v", got.RefTime)
	}
	if err := s.dev.take(s.two); !errors.Is(err, trust.ErrExpired) {
		t.Errorf("took what had expired when the program was built: %v", err)
	}
}

// Somebody keeps every timestamp and hands out the next just before the last
// one ends. If verifying set the clock back, he could do so for ever.
func TestHoardedTimestampsDoNotStretchTheDay(t *testing.T) {
	s := newStory(t)
	var hoard []*repo.World
	for range 20 {
		s.Pass(time.Hour)
		hoard = append(hoard, s.Publish())
	}
	var err error
	taken := 0
	for _, w := range hoard {
		s.dev.up += 23 * time.Hour
		if err = s.dev.take(w); err != nil {
			break
		}
		taken++
	}
	if !errors.Is(err, trust.ErrExpired) || taken > 2 {
		t.Errorf("took %d hoarded timestamps, then: %v", taken, err)
	}
}

func TestExpiryStopsUpdatesAndSaysSo(t *testing.T) {
	s := newStory(t)
	s.dev.up += 24 * time.Hour
	if st := s.dev.Status(); st.Fresh || st.Freshness() != "stale" {
		t.Errorf("status %+v", st)
	}
	if o, err := s.dev.Select("cam-1", nil); o != nil || !errors.Is(err, trust.ErrExpired) {
		t.Errorf("selected %v, %v", o, err)
	}
	s.dev.restart()
	if st := s.dev.Status(); st.Fresh || st.Versions["models"] == 0 {
		t.Errorf("after a restart %+v", st)
	}
	s.Pass(25 * time.Hour)
	s.dev.mustTake(s.Publish())
	if !s.dev.Status().Fresh {
		t.Error("still stale after a new publication")
	}
}

// A new device has no idea of the time; what the timestamp says counts for all
// the rest.
func TestTimestampSetsTheTimeForTheRest(t *testing.T) {
	for _, role := range []string{"snapshot", "targets", "models", "rollouts"} {
		s := newStory(t)
		w := s.two.Expire(role, s.Time.Add(-time.Minute))
		if role == "snapshot" {
			w.SealTimestamp()
		} else {
			w.Seal()
		}
		d := newDevice(t, s.Fleet)
		if err := d.take(w); !errors.Is(err, trust.ErrExpired) {
			t.Errorf("%s a minute older than the timestamp: %v", role, err)
		}
	}
}

// A machine whose clock says 1970 or 2106 has no part in this: the fleet lives
// in 2041 and nothing here asks the system.
func TestSystemClockIsNotAsked(t *testing.T) {
	s := newStory(t)
	if y := s.dev.Status().RefTime.Year(); y != 2041 {
		t.Errorf("the reference year is %d", y)
	}
}

// So that it stays like that.
func TestNothingHereReadsTheSystemClock(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	core, err := filepath.Glob("tufcore/*.go")
	if err != nil || len(core) == 0 {
		t.Fatal("no tufcore here", err)
	}
	read := 0
	for _, name := range append(files, core...) {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		read++
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Since", "Until", "After", "NewTimer"}, sel.Sel.Name) {
					t.Errorf("%s asks time.%s", name, sel.Sel.Name)
				}
			}
			return true
		})
	}
	if read < 10 {
		t.Errorf("only %d files read", read)
	}
}

// The clock that counts from boot may itself be wrong: before its start, as if
// the machine had run since 1970, or until 2106. At worst updates stop until
// the next boot; nothing old is taken, and nothing stays behind.
func TestABrokenClockNeitherBricksNorDeceives(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for name, up := range map[string]time.Duration{
		"before the boot": -100 * year, "1970": -71 * year, "2106": 65 * year, "the largest": 1<<63 - 1, "the smallest": -1 << 63,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t)
			s.dev.mustTake(s.two)
			s.dev.up = up
			s.Pass(time.Minute)
			three := s.Publish()
			if err := s.dev.take(three); err != nil && !errors.Is(err, trust.ErrExpired) {
				t.Errorf("a new publication: %v", err)
			}
			if err := s.dev.take(s.one); err == nil {
				t.Error("an older world was taken, or counted as nothing new")
			}
			s.dev.restart()
			if err := s.dev.take(s.one); err == nil {
				t.Error("after a restart an older world was taken")
			}
			s.dev.reboot("boot-2")
			s.Pass(time.Minute)
			s.dev.mustTake(s.Publish())
			if st := s.dev.Status(); !st.Fresh || st.RefTime.Sub(s.Time).Abs() > 2*time.Minute {
				t.Errorf("after a boot with a good clock %+v, it is %v", st, s.Time)
			}
		})
	}
}

// A thief of the timestamp key drives the clock to the root's last day. A root
// that replaces the key takes that back.
func TestRootThatReplacesTheTimestampKeyResetsTheClock(t *testing.T) {
	s := newStory(t)
	end := repo.Start().AddDate(1, 0, -1)
	fast := s.one.Clone()
	for role, keys := range s.Keys {
		fast.Keys[role] = keys // even with every key, to make everything last
	}
	for _, role := range []string{"models", "rollouts", "targets", "snapshot"} {
		fast.Bump(role).Expire(role, end.AddDate(1, 0, 0))
	}
	fast.Seal().Edit("timestamp", func(f repo.Fields) {
		f["version"] = end.Unix() - 3600
		f["expires"] = "2049-01-01T00:00:00Z"
	})
	s.dev.mustTake(fast)
	if err := s.dev.take(s.two); !errors.Is(err, trust.ErrRollback) {
		t.Fatalf("before the rotation: %v", err)
	}

	next := publish.Keys{"timestamp": signers(repo.Key(t)), "snapshot": signers(repo.Key(t))}
	s.Pass(time.Hour)
	if err := publish.RotateRoot(t.Context(), s, s.Keys["root"], next, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	s.Keys["timestamp"], s.Keys["snapshot"] = next["timestamp"], next["snapshot"]
	// What was published before is signed with keys that are gone.
	good := s.Publish()
	// (What was offered before is tried again, and refused for its keys.)
	if err := errors.Join(s.dev.OfferRole("root", 2, good.Roots[1].Raw), s.dev.Refresh()); err != nil && !errors.Is(err, trust.ErrSignature) {
		t.Fatal(err)
	}
	if o, err := s.dev.Select("cam-1", nil); o != nil || err != nil || s.dev.Status().Fresh {
		t.Errorf("the thief's world still counts: %v %v", o, err)
	}
	s.dev.mustTake(good)
	if got := s.dev.Status().RefTime; got.Sub(s.Time) > 2*time.Minute {
		t.Errorf("the clock still says %v, it is %v", got, s.Time)
	}
	if err := s.dev.take(fast); !errors.Is(err, trust.ErrSignature) {
		t.Errorf("the thief's timestamp after the rotation: %v", err)
	}
	s.dev.restart()
	if got := s.dev.Status(); !got.Fresh || got.Versions["root"] != 2 {
		t.Errorf("after a restart %+v", got)
	}
}

// A key that is only added gives no reason to forget what was seen.
func TestRootThatAddsAKeyKeepsTheFloor(t *testing.T) {
	s := newStory(t)
	s.dev.mustTake(s.two)
	next := publish.Keys{"timestamp": signers(s.Keys["timestamp"][0], repo.Key(t))}
	s.Pass(time.Minute)
	if err := publish.RotateRoot(t.Context(), s, s.Keys["root"], next, nil, s.Time); err != nil {
		t.Fatal(err)
	}
	s.dev.mustTake(s.Publish())
	if err := s.dev.take(s.two); !errors.Is(err, trust.ErrRollback) {
		t.Errorf("replay after the rotation: %v", err)
	}
}
