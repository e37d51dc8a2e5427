package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/droverhq/drover/agent/wire"
)

// Bundle is a file that is whole by its form. All of it is unverified. It keeps
// the metadata, at most about 5 MiB, and where the blobs stand; it is read only
// and may be shared.
type Bundle struct {
	Head     Head
	Metadata []Metadata // in the order of the file
	Current  []byte
	spans    map[string]span
	blobs    []string
}

// span is where a blob stands.
type span struct{ offset, size int64 }

// Is says whether a file that begins so may be a bundle. 13 bytes suffice.
func Is(begin []byte) bool { return bytes.HasPrefix(begin, []byte(headName)) }

// Read reads a file of the given size but for the blobs' bytes. It answers
// ErrIncomplete where the end is missing, ErrFormat, or the reader's error.
func Read(r io.ReaderAt, size int64) (*Bundle, error) {
	s := &scan{at: io.NewSectionReader(r, 0, size)}
	s.tar = tar.NewReader(s.at)
	b := &Bundle{spans: map[string]span{}}
	name, n, err := s.next()
	if err != nil {
		return nil, err
	}
	if name != headName || n > maxHead {
		return nil, fmt.Errorf("%w: begins with %.80q of %d bytes", ErrFormat, name, n)
	}
	raw, err := s.read(n)
	if err != nil {
		return nil, err
	}
	if b.Head, err = decodeHead(raw); err != nil {
		return nil, err
	}
	switch {
	case size < b.Head.Size:
		return nil, fmt.Errorf("%w: %d of %d bytes", ErrIncomplete, size, b.Head.Size)
	case size > b.Head.Size:
		return nil, fmt.Errorf("%w: %d bytes, it says it has %d", ErrFormat, size, b.Head.Size)
	}
	return b, b.fill(s)
}

// fill reads all entries after the head.
func (b *Bundle) fill(s *scan) error {
	k := checker{head: b.Head}
	for {
		name, n, err := s.next()
		if errors.Is(err, io.EOF) {
			if err := k.end(); err != nil {
				return err
			}
			return s.end()
		}
		if err != nil {
			return err
		}
		if err := k.next(name, n); err != nil {
			return err
		}
		if wire.ValidDigest(name) {
			b.spans[name] = span{s.data, n}
			b.blobs = append(b.blobs, name)
			continue
		}
		raw, err := s.read(n)
		if err != nil {
			return err
		}
		if role, version, ok := parseMetadataName(name); ok {
			b.Metadata = append(b.Metadata, Metadata{role, version, raw})
		} else {
			b.Current = raw
		}
	}
}

// Blobs are the digests of what the file holds, in its order.
func (b *Bundle) Blobs() []string { return slices.Clone(b.blobs) }

// Blob says where a blob stands in the file.
func (b *Bundle) Blob(digest string) (offset, size int64, ok bool) {
	s, ok := b.spans[digest]
	return s.offset, s.size, ok
}

// Timestamp is the version that the timestamp says it has, 0 if it says none.
func (b *Bundle) Timestamp() int64 {
	var current wire.Current
	var timestamp struct {
		Signed struct {
			Version int64 `json:"version"`
		} `json:"signed"`
	}
	if wire.Decode(b.Current, wire.MaxCurrent, &current) != nil || json.Unmarshal(current.Timestamp, &timestamp) != nil {
		return 0
	}
	return timestamp.Signed.Version
}

// Role is the newest version of a role; nil when it is not there.
func (b *Bundle) Role(role string) *Metadata {
	var found *Metadata
	for i := range b.Metadata {
		if b.Metadata[i].Role == role {
			found = &b.Metadata[i]
		}
	}
	return found
}

// ReadBlob reads a blob of at most limit bytes out of the file the bundle was
// read from, checked against its name.
func (b *Bundle) ReadBlob(r io.ReaderAt, digest string, limit int64) ([]byte, error) {
	s, ok := b.spans[digest]
	if !ok || s.size > limit {
		return nil, fmt.Errorf("%w: no blob %.80q of at most %d bytes", ErrFormat, digest, limit)
	}
	data := make([]byte, s.size)
	if n, err := r.ReadAt(data, s.offset); n < len(data) {
		return nil, short(err)
	}
	if got := wire.NewBlobRef(data).Digest; got != digest {
		return nil, fmt.Errorf("%w: blob %s has SHA-256 %s", ErrDigest, digest, got)
	}
	return data, nil
}

// Check reads every blob and compares it with its name: ErrDigest.
func (b *Bundle) Check(ctx context.Context, r io.ReaderAt) error {
	buf := make([]byte, 256<<10)
	for _, digest := range b.blobs {
		s, h := b.spans[digest], sha256.New()
		for done := int64(0); done < s.size; {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := buf[:min(int64(len(buf)), s.size-done)]
			if n, err := r.ReadAt(part, s.offset+done); n < len(part) {
				return short(err)
			}
			h.Write(part)
			done += int64(len(part))
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != digest {
			return fmt.Errorf("%w: blob %s has SHA-256 %s", ErrDigest, digest, got)
		}
	}
	return nil
}

// scan goes through a tar archive and lets no header pass unseen.
type scan struct {
	at   *io.SectionReader
	tar  *tar.Reader
	data int64 // where the present entry's bytes begin
	free int64 // where the next header must begin
}

// next is io.EOF where the archive's end must follow.
func (s *scan) next() (name string, size int64, err error) {
	h, err := s.tar.Next()
	switch {
	case errors.Is(err, io.EOF):
		if s.free == 0 {
			return "", 0, fmt.Errorf("%w: empty", ErrIncomplete)
		}
		return "", 0, io.EOF
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "", 0, fmt.Errorf("%w: cut", ErrIncomplete)
	case errors.Is(err, tar.ErrHeader), errors.Is(err, tar.ErrFieldTooLong), errors.Is(err, tar.ErrInsecurePath):
		return "", 0, fmt.Errorf("%w: at byte %d: %w", ErrFormat, s.free, err)
	case err != nil:
		return "", 0, fmt.Errorf("bundle: read: %w", err)
	}
	if s.data, err = s.at.Seek(0, io.SeekCurrent); err != nil {
		return "", 0, fmt.Errorf("bundle: read: %w", err)
	}
	// A header of another kind before this one, which the tar package follows
	// and does not tell of, shows as a gap.
	plain := h.Typeflag == tar.TypeReg && h.Format == tar.FormatUSTAR && h.Linkname == "" && s.data == s.free+block
	if !plain {
		return "", 0, fmt.Errorf("%w: %.80q is no plain file of a plain archive", ErrFormat, h.Name)
	}
	if h.Size < 0 || h.Size > s.at.Size() {
		return "", 0, fmt.Errorf("%w: %.80q has %d bytes, the file has %d", ErrIncomplete, h.Name, h.Size, s.at.Size())
	}
	s.free = s.data + padded(h.Size)
	return h.Name, h.Size, nil
}

// read reads the present entry, whose size was checked.
func (s *scan) read(size int64) ([]byte, error) {
	b := make([]byte, size)
	if _, err := io.ReadFull(s.tar, b); err != nil {
		return nil, short(err)
	}
	return b, nil
}

// end wants the two blocks of zeros, and nothing behind them.
func (s *scan) end() error {
	var b [trailer]byte
	if s.free+trailer != s.at.Size() {
		return fmt.Errorf("%w: the archive ends at byte %d of %d", ErrFormat, s.free+trailer, s.at.Size())
	}
	if n, err := s.at.ReadAt(b[:], s.free); n < len(b) {
		return short(err)
	}
	if b != [trailer]byte{} {
		return fmt.Errorf("%w: no end of the archive at byte %d", ErrIncomplete, s.free)
	}
	return nil
}

// short makes an early end ErrIncomplete.
func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut", ErrIncomplete)
	}
	return fmt.Errorf("bundle: read: %w", err)
}
