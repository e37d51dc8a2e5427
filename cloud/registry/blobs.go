package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"
)

// DefaultMaxBlob bounds a blob where the caller names no bound.
const DefaultMaxBlob = 1 << 30

// spoolAbove is the size from which a blob of unknown digest goes through a
// temporary file instead of memory.
const spoolAbove = 8 << 20

// Blob is a row of the blobs table: these bytes are stored.
type Blob struct {
	Digest  string    `json:"digest"` // SHA-256, lower-case hex
	Size    int64     `json:"size"`   // bytes
	Created time.Time `json:"created"`
}

// Expect says what PutBlob must find; the zero value expects nothing.
type Expect struct {
	Digest string // refuse other bytes, with ErrCorrupt
	Max    int64  // bytes; 0 means DefaultMaxBlob; more is ErrTooLarge
}

// PutBlob stores what it reads and returns its digest and size once both the
// bytes and the row are durable. Storing the same bytes again is cheap and
// changes nothing, except that bytes found missing or of wrong size are put
// back.
func (r *Registry) PutBlob(ctx context.Context, src io.Reader, want Expect) (Blob, error) {
	if want.Max <= 0 {
		want.Max = DefaultMaxBlob
	}
	if want.Digest != "" {
		if err := checkDigest(want.Digest); err != nil {
			return Blob{}, err
		}
	}
	sp, err := spool(src, want.Max, spoolAbove)
	if err != nil {
		return Blob{}, fmt.Errorf("registry: put blob: %w", err)
	}
	defer sp.close()
	if want.Digest != "" && want.Digest != sp.digest {
		return Blob{}, fmt.Errorf("registry: put blob: %w: got %s, expected %s", ErrCorrupt, sp.digest, want.Digest)
	}
	if !r.stored(ctx, sp.digest, sp.size) {
		if err := r.blobs.write(ctx, sp.digest, sp.reader()); err != nil {
			return Blob{}, fmt.Errorf("registry: put blob %s: %w", sp.digest, err)
		}
	}
	b := Blob{Digest: sp.digest, Size: sp.size, Created: r.now()}
	err = r.store.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO blobs (digest, size, created) VALUES (?, ?, ?)
			ON CONFLICT (digest) DO NOTHING`, b.Digest, b.Size, micros(b.Created)); err != nil {
			return err
		}
		b, err = scanBlob(tx.QueryRowContext(ctx, selectBlob, b.Digest))
		return err
	})
	if err != nil {
		return Blob{}, fmt.Errorf("registry: put blob %s: %w", sp.digest, err)
	}
	return b, nil
}

// stored says whether nothing is left to do for a blob. A file without a row does
// not count: whether its rename is durable is not known.
func (r *Registry) stored(ctx context.Context, digest string, size int64) bool {
	if _, err := r.Blob(ctx, digest); err != nil {
		return false
	}
	have, err := r.blobs.size(ctx, digest)
	return err == nil && have == size
}

// PutBytes is PutBlob of bytes in memory.
func (r *Registry) PutBytes(ctx context.Context, data []byte) (Blob, error) {
	return r.PutBlob(ctx, bytes.NewReader(data), Expect{})
}

const selectBlob = `SELECT digest, size, created FROM blobs WHERE digest = ?`

func scanBlob(row row) (b Blob, err error) {
	var created int64
	err = row.Scan(&b.Digest, &b.Size, &created)
	b.Created = instant(created)
	return b, err
}

// Blob says whether the bytes of a digest are stored: ErrNotFound if not.
func (r *Registry) Blob(ctx context.Context, digest string) (Blob, error) {
	if err := checkDigest(digest); err != nil {
		return Blob{}, err
	}
	b, err := scanBlob(r.store.reader.QueryRowContext(ctx, selectBlob, digest))
	if errors.Is(err, sql.ErrNoRows) {
		return Blob{}, &NotFoundError{What: "blob", Name: digest, Hint: "it was never stored in this registry"}
	}
	if err != nil {
		return Blob{}, fmt.Errorf("registry: blob %s: %w", digest, err)
	}
	return b, nil
}

// OpenBlob reads a blob from its beginning. The reader checks the digest as it
// goes: in place of io.EOF it gives ErrCorrupt when the bytes were not those
// named. The caller closes it.
func (r *Registry) OpenBlob(ctx context.Context, digest string) (io.ReadCloser, Blob, error) {
	b, err := r.Blob(ctx, digest)
	if err != nil {
		return nil, Blob{}, err
	}
	rd, err := r.blobs.open(ctx, digest, 0, -1)
	if err != nil {
		return nil, Blob{}, fmt.Errorf("registry: open blob %s: %w", digest, err)
	}
	return &verifier{src: rd, hash: sha256.New(), want: digest}, b, nil
}

// ReadBlob returns a whole blob, verified, if it has at most max bytes.
func (r *Registry) ReadBlob(ctx context.Context, digest string, max int64) ([]byte, error) {
	rd, b, err := r.OpenBlob(ctx, digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rd.Close() }() // only read
	if b.Size > max {
		return nil, fmt.Errorf("registry: read blob %s: %w: %d bytes, allowed %d", digest, ErrTooLarge, b.Size, max)
	}
	data := bytes.NewBuffer(make([]byte, 0, b.Size+bytes.MinRead))
	if _, err := data.ReadFrom(io.LimitReader(rd, b.Size+1)); err != nil {
		return nil, fmt.Errorf("registry: read blob %s: %w", digest, err)
	}
	if int64(data.Len()) != b.Size {
		return nil, fmt.Errorf("registry: read blob %s: %w: %d bytes, wanted %d", digest, ErrCorrupt, data.Len(), b.Size)
	}
	return data.Bytes(), nil
}

// ReadBlobAt fills p from offset off of a blob and says how many bytes it
// found; fewer than len(p) come with io.EOF. The bytes are not verified: it is
// for serving chunks, which the receiver checks one by one.
func (r *Registry) ReadBlobAt(ctx context.Context, digest string, p []byte, off int64) (int, error) {
	b, err := r.Blob(ctx, digest)
	if err != nil {
		return 0, err
	}
	if off < 0 || off >= b.Size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), b.Size-off)
	rd, err := r.blobs.open(ctx, digest, off, n)
	if err != nil {
		return 0, fmt.Errorf("registry: read blob %s at %d: %w", digest, off, err)
	}
	defer func() { _ = rd.Close() }() // only read
	got, err := io.ReadFull(rd, p[:n])
	if err != nil {
		return got, fmt.Errorf("registry: read blob %s at %d: %w", digest, off, err)
	}
	if got < len(p) {
		return got, io.EOF
	}
	return got, nil
}

// verifier passes bytes through and gives ErrCorrupt in place of io.EOF when
// they were not those of want.
type verifier struct {
	src  io.ReadCloser
	hash hash.Hash
	want string
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.src.Read(p)
	v.hash.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want {
			return n, fmt.Errorf("%w: got %s, wanted %s", ErrCorrupt, got, v.want)
		}
		return n, io.EOF
	}
	return n, err
}

func (v *verifier) Close() error { return v.src.Close() }

// spooled is a stream that was read to its end once, to know its digest.
type spooled struct {
	digest string
	size   int64
	mem    []byte
	file   *os.File // nil when mem holds all
}

func spool(src io.Reader, limit, inMemory int64) (*spooled, error) {
	h := sha256.New()
	in := io.TeeReader(io.LimitReader(src, limit+1), h)
	mem, err := io.ReadAll(io.LimitReader(in, inMemory))
	if err != nil {
		return nil, err
	}
	s := &spooled{mem: mem, size: int64(len(mem))}
	if s.size == inMemory {
		if err := s.spill(in); err != nil {
			s.close()
			return nil, err
		}
	}
	if s.size > limit {
		s.close()
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	s.digest = hex.EncodeToString(h.Sum(nil))
	return s, nil
}

func (s *spooled) spill(rest io.Reader) (err error) {
	if s.file, err = os.CreateTemp("", "drover-blob-*"); err != nil {
		return err
	}
	n, err := io.Copy(s.file, rest)
	s.size += n
	return err
}

// reader starts over from the first byte.
func (s *spooled) reader() io.Reader {
	if s.file == nil {
		return bytes.NewReader(s.mem)
	}
	return io.MultiReader(bytes.NewReader(s.mem), io.NewSectionReader(s.file, 0, s.size-int64(len(s.mem))))
}

func (s *spooled) close() {
	if s.file != nil {
		_ = s.file.Close() // a scratch file: nothing to lose
		_ = os.Remove(s.file.Name())
	}
}
