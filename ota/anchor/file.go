package anchor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/google/renameio/v2"
)

// Software is the assurance of a file-backed anchor.
const Software = "software"

// ErrTampered says that the anchor was there and is gone or damaged: epoch 0
// must not be taken for granted.
var ErrTampered = errors.New("anchor: missing or damaged; the device may have been tampered with")

// File keeps the epoch in two checksummed copies in one folder. It is safe for
// concurrent use within one process.
type File struct {
	mu  sync.Mutex
	dir string
}

var copies = [2]string{"epoch.a", "epoch.b"}

type record struct {
	Epoch uint64 `json:"epoch"`
	Sum   string `json:"sha256"` // of the number in decimal
}

func checksum(epoch uint64) string {
	s := sha256.Sum256([]byte("drover epoch " + strconv.FormatUint(epoch, 10)))
	return hex.EncodeToString(s[:])
}

// OpenFile opens the anchor in dir; one that does not exist yet begins at
// epoch 0.
func OpenFile(dir string) (*File, error) {
	f := &File{dir: dir}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	if len(entries) == 0 {
		return f, f.write(0)
	}
	return f, nil
}

// Assurance says how much the anchor is worth.
func (f *File) Assurance() string { return Software }

// Epoch is the highest of the copies that are whole. ErrTampered when none is.
func (f *File) Epoch() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read()
}

func (f *File) read() (uint64, error) {
	var best uint64
	found := false
	for _, name := range copies {
		b, err := os.ReadFile(filepath.Join(f.dir, name))
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return 0, fmt.Errorf("anchor: %w", err)
			}
			continue
		}
		var r record
		if json.Unmarshal(b, &r) == nil && r.Sum == checksum(r.Epoch) {
			best, found = max(best, r.Epoch), true
		}
	}
	if !found {
		return 0, ErrTampered
	}
	return best, nil
}

// Raise lifts the epoch durably; one that is already as high is a success.
func (f *File) Raise(to uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	have, err := f.read()
	if err != nil {
		return err
	}
	if have >= to {
		return nil
	}
	return f.write(to)
}

func (f *File) write(epoch uint64) error {
	b, err := json.Marshal(record{Epoch: epoch, Sum: checksum(epoch)})
	if err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	for _, name := range copies {
		if err := renameio.WriteFile(filepath.Join(f.dir, name), append(b, '\n'), 0o600); err != nil {
			return fmt.Errorf("anchor: write %s: %w", name, err)
		}
	}
	return nil
}
