package anchor

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

const sha256Hash = crypto.SHA256

func openFile(t *testing.T, dir string) *File {
	t.Helper()
	f, err := OpenFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFileDamage(t *testing.T) {
	for _, tc := range []struct {
		name    string
		damaged []string
		want    error
	}{
		{"one copy damaged", copies[:1], nil},
		{"the other copy damaged", copies[1:], nil},
		{"both damaged", copies[:], ErrTampered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			f := openFile(t, dir)
			if err := f.Raise(7); err != nil {
				t.Fatal(err)
			}
			for _, name := range tc.damaged {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"epoch":0,"sha256":"x"}`), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f = openFile(t, dir)
			got, err := f.Epoch()
			if !errors.Is(err, tc.want) || tc.want == nil && got != 7 {
				t.Fatalf("%d %v", got, err)
			}
			if tc.want != nil && f.Raise(8) == nil {
				t.Fatal("raised an anchor that cannot be read")
			}
		})
	}
}

func TestFileBegunButCut(t *testing.T) {
	dir := t.TempDir()
	if err := writeTemp(osFolder(dir), tempOf(copies[0]), []byte("half")); err != nil {
		t.Fatal(err)
	}
	wantEpoch(t, openFile(t, dir), 0)
}

// A copy that a cut left behind is caught up with before the other one can be
// damaged.
func TestFileCopiesAreMadeEqual(t *testing.T) {
	for name, spoil := range map[string]func(string) error{
		"left behind": func(p string) error {
			return os.WriteFile(p, []byte(`{"epoch":6,"sha256":"`+checksum(6)+`"}`), 0o600)
		},
		"damaged": func(p string) error { return os.WriteFile(p, []byte("rubbish"), 0o600) },
		"missing": os.Remove,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := openFile(t, dir).Raise(7); err != nil {
				t.Fatal(err)
			}
			if err := spoil(filepath.Join(dir, copies[1])); err != nil {
				t.Fatal(err)
			}
			f := openFile(t, dir)
			wantEpoch(t, f, 7)
			if err := f.Raise(7); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, copies[0]), []byte("rubbish"), 0o600); err != nil {
				t.Fatal(err)
			}
			wantEpoch(t, openFile(t, dir), 7)
		})
	}
}
