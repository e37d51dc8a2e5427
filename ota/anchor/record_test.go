package anchor

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// Whatever byte of the first copy changes, the second one counts.
func TestRecordSurvivesDamage(t *testing.T) {
	dir := t.TempDir()
	r, err := newRecord(Options{Device: "/dev/tpmrm0"}.withDefaults(), 3)
	if err != nil {
		t.Fatal(err)
	}
	r.Zero = 1234
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, recordCopies[0])
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 1 // a digit stays a digit, a letter a letter
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := loadRecord(dir)
		if err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
		if got.Zero != r.Zero || !bytes.Equal(got.Secret, r.Secret) || !bytes.Equal(got.Tag, r.Tag) || got.Floor != r.Floor || got.Device != r.Device {
			t.Fatalf("byte %d (%q): taken for whole", i, whole[i])
		}
	}
}

func TestAuthValuesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		r, err := newRecord(Options{}.withDefaults(), 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, use := range []string{authNV, authKey, authOwner, authLockout} {
			a := r.auth(use)
			if len(a) != 32 || bytes.IndexByte(a, 0) >= 0 || seen[string(a)] {
				t.Fatalf("auth value %q", a)
			}
			seen[string(a)] = true
		}
	}
}
