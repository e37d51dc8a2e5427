package inbox

import (
	"context"
	"fmt"
	"sync"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/bundle"
	"github.com/droverhq/drover/ota/fetch"
)

// Source reads chunks out of the bundles at hand. It implements fetch.Reader
// and is safe for concurrent use. It holds no file open between two reads, so
// that a stick can be unmounted.
type Source struct {
	mu    sync.Mutex
	files map[string]*bundle.Bundle // by path
}

var _ fetch.Reader = (*Source)(nil)

// NewSource makes a Source without bundles.
func NewSource() *Source { return &Source{files: map[string]*bundle.Bundle{}} }

func (s *Source) add(path string, b *bundle.Bundle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = b
}

func (s *Source) remove(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.files, path)
}

// having are the files that say they have a blob, and where in them.
func (s *Source) having(ref wire.BlobRef) map[string]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int64{}
	for path, b := range s.files {
		if off, size, ok := b.Blob(ref.Digest); ok && size == ref.Size {
			out[path] = off
		}
	}
	return out
}

// Read implements fetch.Reader. Of several bundles that have a blob, one serves
// where another is damaged.
func (s *Source) Read(ctx context.Context, ref wire.BlobRef, chunks []int, give func(chunk int, data []byte)) error {
	files := s.having(ref)
	if len(files) == 0 {
		return fmt.Errorf("%w: no bundle at hand has %s", fetch.ErrAbsent, ref.Digest)
	}
	var failed error
	left := chunks
	for path, off := range files {
		if len(left) == 0 {
			break
		}
		var err error
		if left, err = readChunks(ctx, path, off, ref, left, give); err != nil {
			failed = err
		}
	}
	switch {
	case len(left) == 0:
		return nil // whatever another file lacked
	case failed == nil:
		failed = fmt.Errorf("inbox: %d chunks of %s are damaged in every bundle at hand", len(left), ref.Digest)
	}
	return failed
}

// readChunks gives the chunks that a file has right, and returns the others.
func readChunks(ctx context.Context, path string, off int64, ref wire.BlobRef, chunks []int, give func(int, []byte)) (left []int, err error) {
	r, _, err := open(path)
	if err != nil {
		return chunks, err
	}
	defer r.Close()
	for i, c := range chunks {
		if err := ctx.Err(); err != nil {
			return append(left, chunks[i:]...), err
		}
		b := make([]byte, ref.ChunkLen(c))
		if n, err := r.ReadAt(b, off+int64(c)*wire.ChunkSize); n < len(b) {
			return append(left, chunks[i:]...), fmt.Errorf("inbox: read chunk %d of %s in %s: %w", c, ref.Digest, path, err)
		}
		// A manifest of several chunks has no digests for them; its reader
		// checks it as a whole.
		if (len(ref.Chunks) > 0 || ref.Count() == 1) && !ref.CheckChunk(c, b) {
			left = append(left, c)
			continue
		}
		give(c, b)
	}
	return left, nil
}
