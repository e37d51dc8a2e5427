package anchor

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
)

// File keeps the epoch in two checksummed copies in one folder, and no key. It
// is safe for concurrent use within one process.
type File struct {
	mu  sync.Mutex
	dir Folder
}

var _ Anchor = (*File)(nil)

var copies = [2]string{"epoch.a", "epoch.b"}

type epochRecord struct {
	Epoch uint64 `json:"epoch"`
	Sum   string `json:"sha256"` // of the number in decimal
}

func checksum(epoch uint64) string {
	s := sha256.Sum256([]byte("drover epoch " + strconv.FormatUint(epoch, 10)))
	return hex.EncodeToString(s[:])
}

// OpenFile opens the anchor in dir; one that does not exist yet begins at
// epoch 0. ErrTampered in a folder whose record says that the TPM holds the
// epoch.
func OpenFile(dir string) (*File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	if r, err := loadRecord(dir); err == nil && r.Stage == stageReady || errors.Is(err, ErrTampered) {
		return nil, fmt.Errorf("%w: the epoch is in a TPM, as %s in %s says", ErrTampered, recordCopies[0], dir)
	}
	if fileExists(dir) {
		return &File{dir: osFolder(dir)}, nil // Epoch tells what is wrong with it
	}
	return OpenFileIn(osFolder(dir))
}

// OpenFileIn is OpenFile in a folder that is there and never belonged to a TPM.
func OpenFileIn(dir Folder) (*File, error) {
	f := &File{dir: dir}
	for _, name := range copies {
		if _, err := read(dir, name); !errors.Is(err, fs.ErrNotExist) {
			return f, nil
		}
	}
	return f, f.write(0)
}

// fileExists says whether there is, or was begun, a file anchor in dir. A
// temporary file that a power cut left is none: a copy gets its name only once
// its bytes are durable.
func fileExists(dir string) bool {
	for _, name := range copies {
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			return true
		}
	}
	return false
}

// Assurance is Software.
func (f *File) Assurance() string { return Software }

// Signer is ErrNoKey: the key belongs into a file of its own.
func (f *File) Signer() (crypto.Signer, error) { return nil, ErrNoKey }

// Close does nothing.
func (f *File) Close() error { return nil }

// Epoch is the highest of the copies that are whole. ErrTampered when none is.
func (f *File) Epoch() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, _, err := f.read()
	return e, err
}

// read also says whether all copies hold the epoch.
func (f *File) read() (best uint64, all bool, err error) {
	var have []uint64
	for _, name := range copies {
		b, err := read(f.dir, name)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return 0, false, fmt.Errorf("anchor: %w", err)
			}
			continue
		}
		if e, err := parseEpoch(b); err == nil {
			have = append(have, e)
		}
	}
	if len(have) == 0 {
		return 0, false, ErrTampered
	}
	best = slices.Max(have)
	return best, len(have) == len(copies) && slices.Min(have) == best, nil
}

func parseEpoch(b []byte) (uint64, error) {
	var r epochRecord
	if err := strict(b, &r); err != nil {
		return 0, err
	}
	if r.Sum != checksum(r.Epoch) {
		return 0, errors.New("wrong checksum")
	}
	return r.Epoch, nil
}

// Raise lifts the epoch durably; one that is already as high is a success. A
// copy that a cut left behind, or that is damaged, is written again: the other
// one may be the next to be damaged.
func (f *File) Raise(to uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	have, all, err := f.read()
	if err != nil {
		return err
	}
	if have >= to && all {
		return nil
	}
	return f.write(max(have, to))
}

func (f *File) write(epoch uint64) error {
	b, err := json.Marshal(epochRecord{Epoch: epoch, Sum: checksum(epoch)})
	if err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	for _, name := range copies {
		if err := replace(f.dir, name, append(b, '\n')); err != nil {
			return fmt.Errorf("anchor: write %s: %w", name, err)
		}
	}
	return nil
}
