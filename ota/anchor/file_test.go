package anchor

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func open(t *testing.T, dir string) *File {
	t.Helper()
	f, err := OpenFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func epoch(t *testing.T, f *File, want uint64) {
	t.Helper()
	got, err := f.Epoch()
	if err != nil || got != want {
		t.Fatalf("epoch %d, %v; wanted %d", got, err, want)
	}
}

func TestEpochOnlyRises(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	epoch(t, f, 0)
	for _, to := range []uint64{3, 3, 1} {
		if err := f.Raise(to); err != nil {
			t.Fatal(err)
		}
		epoch(t, f, 3)
	}
	epoch(t, open(t, dir), 3)
}

func TestDamage(t *testing.T) {
	for _, tc := range []struct {
		name    string
		damaged []string
		want    error
	}{
		{"one copy lost", copies[:1], nil},
		{"the other copy lost", copies[1:], nil},
		{"both lost", copies[:], ErrTampered},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			f := open(t, dir)
			if err := f.Raise(7); err != nil {
				t.Fatal(err)
			}
			for _, name := range tc.damaged {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"epoch":0,"sha256":"x"}`), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f = open(t, dir)
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
