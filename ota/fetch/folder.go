package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/droverhq/drover/agent/wire"
)

// Folder reads blobs from a folder whose files are named by their SHA-256, such
// as a bundle unpacked from a USB stick. It is trusted with nothing. It is safe
// for concurrent use.
type Folder struct{ dir string }

// NewFolder makes a Folder. dir need not exist yet.
func NewFolder(dir string) *Folder { return &Folder{dir: dir} }

// Read implements Reader. A file that is not there, is no regular file, or has
// another size than the blob, is ErrAbsent: it may still be being copied.
func (f *Folder) Read(ctx context.Context, ref wire.BlobRef, chunks []int, give func(chunk int, data []byte)) error {
	if !wire.ValidDigest(ref.Digest) {
		return fmt.Errorf("%w: no digest", ErrAbsent)
	}
	root, err := os.OpenRoot(f.dir) // no link leads out of it
	if err != nil {
		return absent(err)
	}
	defer root.Close()
	// Stat first: opening a pipe would wait for its other end.
	if info, err := root.Lstat(ref.Digest); err != nil {
		return absent(err)
	} else if !info.Mode().IsRegular() || info.Size() != ref.Size {
		return fmt.Errorf("%w: %s in %s: %v of %d bytes, wanted %d", ErrAbsent, ref.Digest, f.dir, info.Mode(), info.Size(), ref.Size)
	}
	file, err := root.Open(ref.Digest)
	if err != nil {
		return absent(err)
	}
	defer file.Close()
	for _, i := range chunks {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := make([]byte, ref.ChunkLen(i))
		if _, err := file.ReadAt(b, int64(i)*wire.ChunkSize); err != nil && !(errors.Is(err, io.EOF) && len(b) == 0) {
			return fmt.Errorf("fetch: read chunk %d of %s in %s: %w", i, ref.Digest, f.dir, err)
		}
		give(i, b)
	}
	return nil
}

func absent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrAbsent, err)
	}
	return fmt.Errorf("fetch: %w", err)
}
