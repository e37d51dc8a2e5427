package cloud

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/test/tinymodel"
)

// testFleet is a new fleet without passphrases.
func testFleet(t *testing.T) *Fleet {
	t.Helper()
	at := Endpoint{Listen: "127.0.0.1:0", Public: "localhost:0"}
	f, err := Init(t.Context(), filepath.Join(t.TempDir(), "fleet"), InitOptions{
		Settings: Settings{Fleet: "test", Broker: at, Enroll: at}, Insecure: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// released registers a tiny model and signs a release of it, without a runtime.
func released(t *testing.T, f *Fleet) (model, manifest []byte, m *wire.Manifest) {
	t.Helper()
	model, spec := tinymodel.Build(tinymodel.Options{Name: t.Name()})
	m = register(t, f, model)
	m.Variants[0].Spec = spec
	if _, err := f.SignRelease(t.Context(), m, ""); err != nil {
		t.Fatal(err)
	}
	return model, wire.Encode(m), m
}

// register stores a model and describes a release of it.
func register(t *testing.T, f *Fleet, model []byte) *wire.Manifest {
	t.Helper()
	_, spec := tinymodel.Build(tinymodel.Options{})
	blob, err := f.Registry.PutBytes(t.Context(), model)
	if err != nil {
		t.Fatal(err)
	}
	r, err := f.Registry.AddModel(t.Context(), registry.Model{Name: "tiny", TFLite: blob.Digest, Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.variant(t.Context(), "cpu", model, spec, tinymodel.Golden(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Manifest{V: wire.Version, Model: "tiny", Version: r.Version, Created: time.Now().Unix(), Variants: []wire.Variant{v}}
}

// TestVerifyAttacks is a table of what can be wrong, and at which link it shows.
func TestVerifyAttacks(t *testing.T) {
	const year = 366 * 24 * time.Hour
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, f *Fleet, manifest []byte, m *wire.Manifest) (file []byte)
		later time.Duration
		link  string // where it breaks; "" nowhere
		says  string
	}{
		{"whole", func(_ *testing.T, _ *Fleet, b []byte, _ *wire.Manifest) []byte { return b }, 0, "", ""},
		{"notes changed", func(_ *testing.T, _ *Fleet, _ []byte, m *wire.Manifest) []byte {
			m.Notes = "harmless"
			return wire.Encode(m)
		}, 0, "manifest", "changed after signing"},
		{"another version", func(_ *testing.T, _ *Fleet, _ []byte, m *wire.Manifest) []byte {
			m.Version = 7
			return wire.Encode(m)
		}, 0, "manifest", "was never signed"},
		{"cut", func(_ *testing.T, _ *Fleet, b []byte, _ *wire.Manifest) []byte { return b[:len(b)/2] }, 0, "file", "is none"},
		{"noise", func(*testing.T, *Fleet, []byte, *wire.Manifest) []byte { return []byte{0, 1, 2} }, 0, "file", "no release"},
		{"empty", func(*testing.T, *Fleet, []byte, *wire.Manifest) []byte { return nil }, 0, "file", "no release"},
		{"retired", func(t *testing.T, f *Fleet, b []byte, m *wire.Manifest) []byte {
			keys, err := f.signers(t.Context(), wire.RoleModels, "")
			if err == nil {
				err = publish.RetireReleases(t.Context(), f.Repo(), keys, []string{m.Path()}, time.Now())
			}
			if err != nil {
				t.Fatal(err)
			}
			return b
		}, 0, "manifest", "was retired"},
		{"revoked", func(t *testing.T, f *Fleet, b []byte, m *wire.Manifest) []byte {
			if err := f.Registry.SetReleaseState(t.Context(), m.Path(), registry.ReleaseRevoked); err != nil {
				t.Fatal(err)
			}
			return b
		}, 0, "release", "revoked"},
		{"model damaged on disk", func(t *testing.T, f *Fleet, b []byte, m *wire.Manifest) []byte {
			damage(t, f, m.Variants[0].Model.Digest)
			return b
		}, 0, "blob", "not stored as it was signed"},
		{"models expired", func(_ *testing.T, _ *Fleet, b []byte, _ *wire.Manifest) []byte { return b }, year / 2, "models", "past its expiry"},
		{"root expired", func(_ *testing.T, _ *Fleet, b []byte, _ *wire.Manifest) []byte { return b }, year, "root", "past its expiry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := testFleet(t)
			_, manifest, m := released(t, f)
			v, err := f.Verify(t.Context(), c.spoil(t, f, manifest, m), time.Now().Add(c.later))
			if err != nil {
				t.Fatal(err)
			}
			broken, detail := "", ""
			for _, l := range v.Links {
				if !l.OK {
					broken, detail = l.Name, l.Detail
					break
				}
			}
			if broken != c.link || !strings.Contains(detail, c.says) || v.OK != (c.link == "") {
				t.Errorf("ok %v, breaks at %q (%s); wanted %q (%s)", v.OK, broken, detail, c.link, c.says)
			}
		})
	}
}

// damage changes a byte of a stored blob.
func damage(t *testing.T, f *Fleet, digest string) {
	t.Helper()
	found := false
	err := filepath.WalkDir(filepath.Join(f.Dir, "registry", "blobs"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(strings.ReplaceAll(path, "/", ""), digest) && filepath.Base(path) != digest {
			return err
		}
		found = true
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600))
	})
	if err != nil || !found {
		t.Fatalf("blob %s found %v: %v", digest, found, err)
	}
}

func TestVerifyModel(t *testing.T) {
	f := testFleet(t)
	model, _, m := released(t, f)
	v, err := f.Verify(t.Context(), model, time.Now())
	if err != nil || !v.OK || v.Kind != "model" || v.Release != m.Path() {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err = f.Verify(t.Context(), append(bytes.Clone(model), 0), time.Now()); err != nil || v.OK {
		t.Errorf("one byte more: %+v, %v", v, err)
	}
}

// TestReleaseIsFinished: a release whose signing was cut off is signed by trying
// again, with the manifest it had; one that is signed is never made anew.
func TestReleaseIsFinished(t *testing.T) {
	f := testFleet(t)
	model, _ := tinymodel.Build(tinymodel.Options{})
	m := register(t, f, model)
	blob, err := f.Registry.PutBytes(t.Context(), wire.Encode(m))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Registry.AddRelease(t.Context(), registry.Release{Path: m.Path(), Model: m.Model, Version: m.Version, Manifest: blob.Digest}); err != nil {
		t.Fatal(err)
	}
	if rel, err := f.Release(t.Context(), ReleaseOptions{Model: "tiny@1"}); err != nil || rel.Manifest != blob.Digest {
		t.Fatalf("%+v, %v", rel, err)
	}
	if v, err := f.Verify(t.Context(), wire.Encode(m), time.Now()); err != nil || !v.OK {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := f.Release(t.Context(), ReleaseOptions{Model: "tiny@1"}); !errors.Is(err, publish.ErrExists) {
		t.Errorf("a second time: %v", err)
	}
}

func TestCheckKey(t *testing.T) {
	f := testFleet(t)
	if err := f.CheckKey(wire.RoleModels, ""); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(f.Dir, "keys", "models.key")); err != nil {
		t.Fatal(err)
	}
	if err := f.CheckKey(wire.RoleModels, ""); !errors.Is(err, ErrNoKey) {
		t.Errorf("without the file: %v", err)
	}
}
