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
	if _, err := writeTemp(dir, []byte("half")); err != nil {
		t.Fatal(err)
	}
	wantEpoch(t, openFile(t, dir), 0)
}
