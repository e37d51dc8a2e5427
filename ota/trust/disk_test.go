package trust_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/ota/store"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// openOn opens a client on a real store in a folder.
func openOn(t *testing.T, dir string, f *repo.Fleet) *trust.Client {
	t.Helper()
	d, err := store.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	st, err := store.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	c, err := trust.Open(trust.Options{
		Store: st, Root: f.Root(), BuildTime: repo.Start().AddDate(0, -1, 0), BootID: "boot",
		Boottime: func() time.Duration { return time.Hour },
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func takeOn(c *trust.Client, w *repo.World) error { return errors.Join(w.Offer(c), c.Refresh()) }

// Whatever file of the real store is damaged in whatever way, also both copies
// of one record: the device opens, refuses the older world, and the same
// publication heals it for good.
func TestNoDamagedFileTakesADeviceBack(t *testing.T) {
	s := newStory(t)
	damages := map[string]func(b []byte) []byte{
		"missing": func([]byte) []byte { return nil },
		"empty":   func([]byte) []byte { return []byte{} },
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"zeroed":  func(b []byte) []byte { return make([]byte, len(b)) },
		"a bit": func(b []byte) []byte {
			b = bytes.Clone(b)
			b[len(b)/2] ^= 4
			return b
		},
		"longer": func(b []byte) []byte { return append(bytes.Clone(b), "}"...) },
	}
	fresh := func(t *testing.T) string {
		dir := t.TempDir()
		c := openOn(t, dir, s.Fleet)
		for _, w := range []*repo.World{s.one, s.two} { // so that both copies of each record are written
			if err := takeOn(c, w); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	hits := map[string][]string{}
	files, err := filepath.Glob(filepath.Join(fresh(t), "*.[ab]"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		name := filepath.Base(f)
		record := strings.TrimSuffix(strings.TrimSuffix(name, ".a"), ".b")
		hits[name] = []string{name}
		hits[record] = append(hits[record], name)
	}
	if len(hits["floor"]) != 2 || len(hits["trust"]) != 2 {
		t.Fatalf("the store has %v, expected two copies of trust and floor", files)
	}
	for hit, names := range hits {
		for how, damage := range damages {
			t.Run(how+" "+hit, func(t *testing.T) {
				dir := fresh(t)
				for _, n := range names {
					path := filepath.Join(dir, n)
					b, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					if b = damage(b); b == nil {
						err = os.Remove(path)
					} else {
						err = os.WriteFile(path, b, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				c := openOn(t, dir, s.Fleet)
				if err := takeOn(c, s.one); err == nil && c.Status().Versions["timestamp"] != s.two.Version("timestamp") {
					t.Fatalf("the older world was taken: %v", c.Status().Versions)
				} else if err != nil && !errors.Is(err, trust.ErrRollback) {
					t.Fatalf("the older world was refused for %v", err)
				}
				if err := takeOn(c, s.two); err != nil {
					t.Fatal(err)
				}
				again := openOn(t, dir, s.Fleet).Status()
				if !again.Fresh || again.Versions["timestamp"] != s.two.Version("timestamp") {
					t.Errorf("not healed for good: %+v", again)
				}
			})
		}
	}
}
