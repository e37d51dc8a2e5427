package publish_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/droverhq/drover/cloud/publish"
)

// cheap keeps the tests quick; the format is the same.
func cheap(pass string) publish.Protection {
	return publish.Protection{Passphrase: pass, WorkFactor: 10}
}

func TestKeyFiles(t *testing.T) {
	d := publish.KeyDir{Path: filepath.Join(t.TempDir(), "keys")}
	locked, err := d.Create("root", cheap("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := d.Create("root", cheap("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	open, err := d.Create("timestamp", publish.Protection{Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	got, err := d.Load("root", "correct horse")
	if err != nil || len(got) != 2 || !equal(got[0], locked) || !equal(got[1], second) {
		t.Errorf("read %d root keys, %v", len(got), err)
	}
	got, err = d.Load("timestamp", "")
	if err != nil || len(got) != 1 || !equal(got[0], open) {
		t.Errorf("read %d timestamp keys, %v", len(got), err)
	}
	for name, pass := range map[string]string{"wrong": "battery staple", "none": ""} {
		if _, err := d.Load("root", pass); !errors.Is(err, publish.ErrPassphrase) {
			t.Errorf("%s passphrase: %v", name, err)
		}
	}
	if _, err := d.Load("models", ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
	if _, err := d.Create("models", publish.Protection{}); !errors.Is(err, publish.ErrPassphrase) {
		t.Errorf("no passphrase and not asked for: %v", err)
	}
	files, err := os.ReadDir(d.Path)
	if err != nil || len(files) != 6 { // each with its public half
		t.Errorf("%d files, %v: something was left behind", len(files), err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
}

func equal(a, b crypto.Signer) bool {
	return a.Public().(ed25519.PublicKey).Equal(b.Public())
}

func TestDamagedKeyFile(t *testing.T) {
	d := publish.KeyDir{Path: t.TempDir()}
	if _, err := d.Create("root", cheap("pass")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.Path, "root.key")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	flipped := bytes.Clone(good)
	flipped[len(flipped)*3/4] ^= 1
	for name, b := range map[string][]byte{"empty": nil, "cut": good[:len(good)/2], "junk": []byte("hello"), "a bit": flipped} {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Load("root", "pass"); !errors.Is(err, publish.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
