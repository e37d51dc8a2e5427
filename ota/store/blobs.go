package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

const (
	blobDir    = "blobs"
	partDir    = "parts"
	partSuffix = ".part"
	readings   = 2 // of a blob, before it counts as damaged
	// reserve is kept free of blobs, so that records can always be written.
	reserve = 4 << 20
)

// Blobs holds immutable bytes under their SHA-256. It is safe for concurrent
// use; of one .part at most one Part may be open.
type Blobs struct {
	fs FS
	mu sync.Mutex // held while names are given or taken
}

func blobName(digest string) string { return blobDir + "/" + digest }
func partName(digest string) string { return partDir + "/" + digest + partSuffix }

// checkName keeps anything but a digest from becoming a file name.
func checkName(digest string) error {
	if b, err := hex.DecodeString(digest); err != nil || len(b) != sha256.Size || strings.ToLower(digest) != digest {
		return fmt.Errorf("%w: %.80q is no SHA-256", ErrDigest, digest)
	}
	return nil
}

// Has says whether the blob is here; it was checked when it came.
func (b *Blobs) Has(digest string) bool {
	f, err := b.Open(digest)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// Open opens a blob for reading. The bytes were checked when they came, not
// now: use Read where they matter.
func (b *Blobs) Open(digest string) (File, error) {
	if err := checkName(digest); err != nil {
		return nil, err
	}
	f, err := b.fs.Open(blobName(digest), os.O_RDONLY)
	if err != nil {
		return nil, wrap("open", blobName(digest), err)
	}
	return f, nil
}

// Read returns the bytes of a blob of at most max bytes, checked against the
// digest after reading: what was checked is what the caller holds. A damaged
// blob is removed and reported as *CorruptError, so that it is fetched again.
// It must have been read wrongly twice: one wrong bit on the way from the disk
// must not cost the release that runs.
func (b *Blobs) Read(digest string, max int64) ([]byte, error) {
	if err := checkName(digest); err != nil {
		return nil, err
	}
	for range readings {
		data, err := readBounded(b.fs, blobName(digest), max)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(data)
		if hex.EncodeToString(sum[:]) == digest {
			return data, nil
		}
	}
	return nil, b.corrupt(digest)
}

// Check is Read without keeping the bytes.
func (b *Blobs) Check(digest string) error {
	f, err := b.Open(digest)
	if err != nil {
		return err
	}
	defer f.Close()
	for range readings {
		sum, _, err := hashFile(f)
		if err != nil {
			return wrap("read", blobName(digest), err)
		}
		if sum == digest {
			return nil
		}
	}
	return b.corrupt(digest)
}

func (b *Blobs) corrupt(digest string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.fs.Remove(blobName(digest)) // left where it is it would be found again
	return &CorruptError{Name: blobName(digest), Why: "digest differs"}
}

func hashFile(f File) (digest string, size int64, err error) {
	size, err = f.Size()
	if err != nil {
		return "", 0, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, size)); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// Part is an open .part file: bytes nobody has checked as a whole. It is not
// safe for concurrent use. The caller closes it.
type Part struct {
	File
	fs    FS
	name  string
	named bool // its name is durable
}

// WriteAt is io.WriterAt with the store's error kinds.
func (p *Part) WriteAt(data []byte, off int64) (int, error) {
	n, err := p.File.WriteAt(data, off)
	return n, wrap("write", p.name, err)
}

// Sync makes what was written durable, and the first time the name too.
func (p *Part) Sync() error {
	if err := p.File.Sync(); err != nil {
		return wrap("sync", p.name, err)
	}
	if !p.named {
		if err := p.fs.SyncDir(partDir); err != nil {
			return wrap("sync folder of", p.name, err)
		}
		p.named = true
	}
	return nil
}

// Part opens the .part of a blob, with whatever an earlier run left in it.
func (b *Blobs) Part(digest string) (*Part, error) {
	if err := checkName(digest); err != nil {
		return nil, err
	}
	name := partName(digest)
	f, err := b.fs.Open(name, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, wrap("create", name, err)
	}
	return &Part{File: f, fs: b.fs, name: name}, nil
}

// PartSize is the size of the .part of a blob; 0 when there is none.
func (b *Blobs) PartSize(digest string) int64 {
	if checkName(digest) != nil {
		return 0
	}
	f, err := b.fs.Open(partName(digest), os.O_RDONLY)
	if err != nil {
		return 0
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0
	}
	return size
}

// Put makes a blob of a .part, if its bytes are exactly those of the digest.
// Otherwise it removes the .part and returns ErrDigest. A blob that is already
// here is a success.
func (b *Blobs) Put(digest string) error {
	if b.Has(digest) {
		return b.DropPart(digest)
	}
	if err := checkName(digest); err != nil {
		return err
	}
	name := partName(digest)
	f, err := b.fs.Open(name, os.O_RDWR)
	if err != nil {
		return wrap("open", name, err)
	}
	var sum string
	var size int64
	for range readings {
		if sum, size, err = hashFile(f); err != nil {
			f.Close()
			return wrap("read", name, err)
		}
		if sum == digest {
			break
		}
	}
	if sum != digest {
		f.Close()
		return errors.Join(fmt.Errorf("%w: %s has %d bytes of digest %s", ErrDigest, name, size, sum), b.DropPart(digest))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return publish(b.fs, f, name, blobName(digest))
}

// DropPart removes the .part of a blob, if there is one.
func (b *Blobs) DropPart(digest string) error {
	if err := checkName(digest); err != nil {
		return err
	}
	if err := wrap("remove", partName(digest), b.fs.Remove(partName(digest))); err != nil && !errors.Is(err, ErrMissing) {
		return err
	}
	return nil
}

// Reserve says whether need more bytes of blobs fit; ErrNoSpace if not.
func (b *Blobs) Reserve(need int64) error {
	free, err := b.fs.Free()
	if err != nil {
		return wrap("ask free space of", ".", err)
	}
	if free-reserve < need {
		return fmt.Errorf("%w: %d bytes wanted, %d free of which %d are kept", ErrNoSpace, need, free, reserve)
	}
	return nil
}

func (b *Blobs) removeBut(named map[string]bool) (n int, first error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, dir := range []string{blobDir, partDir} {
		names, err := b.fs.List(dir)
		if err != nil && first == nil {
			first = wrap("list", dir, err)
		}
		for _, name := range names {
			digest := strings.TrimSuffix(name, partSuffix)
			if named[digest] && (dir == blobDir || !b.Has(digest)) {
				continue
			}
			if err := b.fs.Remove(dir + "/" + name); err == nil {
				n++
			} else if first == nil {
				first = wrap("remove", dir+"/"+name, err)
			}
		}
	}
	return n, first
}

// Path is where the blob lies when the store stands on a real folder; else "".
// It is for showing: bytes that matter are read by Read.
func (b *Blobs) Path(digest string) string {
	d, ok := b.fs.(interface{ Path() string })
	if !ok || checkName(digest) != nil {
		return ""
	}
	return filepath.Join(d.Path(), filepath.FromSlash(blobName(digest)))
}
