package fetch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

func put(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOutOfAFolder(t *testing.T) {
	for _, size := range []int{0, 1, wire.ChunkSize, 40*wire.ChunkSize + 17} {
		dir, blob := t.TempDir(), randomBlob(size)
		put(t, dir, wire.NewBlobRef(blob).Digest, blob)
		st, got, err := bring(t, Config{Near: []Reader{NewFolder(dir)}}, blob, NewBudget(1, 0))
		if err != nil || !bytes.Equal(got, blob) || st.Bytes != 0 {
			t.Errorf("%d bytes: %v, %+v", size, err, st)
		}
	}
}

func TestAFolderIsTrustedWithNothing(t *testing.T) {
	blob := randomBlob(3 * wire.ChunkSize)
	ref := wire.NewBlobRef(blob)
	secret := t.TempDir()
	put(t, secret, "secret", blob)
	tests := map[string]func(dir string) error{
		"empty":       func(string) error { return nil },
		"half copied": func(dir string) error { put(t, dir, ref.Digest, blob[:len(blob)-1]); return nil },
		"too long":    func(dir string) error { put(t, dir, ref.Digest, append(bytes.Clone(blob), 0)); return nil },
		"a folder":    func(dir string) error { return os.Mkdir(filepath.Join(dir, ref.Digest), 0o700) },
		"a pipe":      func(dir string) error { return syscall.Mkfifo(filepath.Join(dir, ref.Digest), 0o600) },
		"a link out": func(dir string) error {
			return os.Symlink(filepath.Join(secret, "secret"), filepath.Join(dir, ref.Digest))
		},
		"not there": func(dir string) error { return os.Remove(dir) },
	}
	for name, make := range tests {
		dir := filepath.Join(t.TempDir(), "blobs")
		if err := errors.Join(os.Mkdir(dir, 0o700), make(dir)); err != nil {
			t.Fatal(err)
		}
		err := NewFolder(dir).Read(t.Context(), ref, []int{0}, func(int, []byte) { t.Errorf("%s: brought something", name) })
		if !errors.Is(err, ErrAbsent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := NewFolder(secret).Read(t.Context(), wire.BlobRef{Digest: "secret", Size: ref.Size}, []int{0}, nil); !errors.Is(err, ErrAbsent) {
		t.Errorf("no digest: %v", err)
	}
}

// What is right on a stick is used, what is wrong comes from elsewhere.
func TestASpoiltStickCostsWhatIsSpoilt(t *testing.T) {
	dir, blob := t.TempDir(), randomBlob(20*wire.ChunkSize)
	spoilt := bytes.Clone(blob)
	spoilt[5*wire.ChunkSize] ^= 1
	spoilt[17*wire.ChunkSize] ^= 1
	put(t, dir, wire.NewBlobRef(blob).Digest, spoilt)
	s := &shelf{blob: blob}
	st, got, err := bring(t, Config{Near: []Reader{NewFolder(dir)}, Far: []Reader{server(t, s)}, Pause: 50 * time.Millisecond}, blob, nil)
	if err != nil || !bytes.Equal(got, blob) {
		t.Fatal(err)
	}
	if st.Corrupt != 2 || st.Bytes != 2*wire.ChunkSize || st.Good != 20 {
		t.Errorf("%+v", st)
	}
}
