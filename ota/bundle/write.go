package bundle

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/droverhq/drover/agent/wire"
)

// Blob is one blob to be written.
type Blob struct {
	Digest string
	Size   int64
	// Open reads it from its beginning.
	Open func() (io.ReadCloser, error)
}

// Content is what a bundle is written of.
type Content struct {
	Head     Head       // Size and Entries are filled in
	Metadata []Metadata // in the order of the format
	Current  []byte
	Blobs    []Blob // the manifest first
}

// Complete gives the head with its size and number of entries, or says what
// Write would refuse before it wrote anything.
func (c *Content) Complete() (Head, error) {
	b, err := c.head()
	if err != nil {
		return Head{}, err
	}
	return decodeHead(b)
}

// Write writes a bundle in one pass. It refuses content that Read would, and a
// blob that is not what its digest says with ErrDigest; what was written until
// then is no bundle.
func Write(w io.Writer, c *Content) error {
	head, err := c.head()
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	put := func(name string, b []byte) error {
		err := tw.WriteHeader(header(name, int64(len(b))))
		if err == nil {
			_, err = tw.Write(b)
		}
		if err != nil {
			return fmt.Errorf("bundle: write %s: %w", name, err)
		}
		return nil
	}
	if err := put(headName, head); err != nil {
		return err
	}
	for _, m := range c.Metadata {
		if err := put(metadataName(m.Role, m.Version), m.Raw); err != nil {
			return err
		}
	}
	if err := put(currentName, c.Current); err != nil {
		return err
	}
	for _, b := range c.Blobs {
		if err := writeBlob(tw, b); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("bundle: write: %w", err)
	}
	return nil
}

func header(name string, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatUSTAR}
}

func writeBlob(tw *tar.Writer, b Blob) error {
	if err := tw.WriteHeader(header(b.Digest, b.Size)); err != nil {
		return fmt.Errorf("bundle: write blob %s: %w", b.Digest, err)
	}
	src, err := b.Open()
	if err != nil {
		return fmt.Errorf("bundle: open blob %s: %w", b.Digest, err)
	}
	defer src.Close()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(tw, h), io.LimitReader(src, b.Size))
	if err != nil {
		return fmt.Errorf("bundle: write blob %s: %w", b.Digest, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); n != b.Size || got != b.Digest {
		return fmt.Errorf("%w: blob %s gives %d bytes with SHA-256 %s, wanted %d", ErrDigest, b.Digest, n, got, b.Size)
	}
	return nil
}

// head completes the head and checks all that is known before writing.
func (c *Content) head() ([]byte, error) {
	k := checker{head: c.Head}
	size := int64(trailer)
	entry := func(name string, n int64) error {
		size += block + padded(n)
		return k.next(name, n)
	}
	k.head.Entries = 2 + len(c.Metadata) + len(c.Blobs)
	for _, m := range c.Metadata {
		if err := entry(metadataName(m.Role, m.Version), int64(len(m.Raw))); err != nil {
			return nil, err
		}
	}
	if err := entry(currentName, int64(len(c.Current))); err != nil {
		return nil, err
	}
	for _, b := range c.Blobs {
		if err := entry(b.Digest, b.Size); err != nil {
			return nil, err
		}
	}
	if err := k.end(); err != nil {
		return nil, err
	}
	h := k.head
	for { // the size has digits that count themselves
		b := wire.Encode(h)
		all := size + block + padded(int64(len(b)))
		if all == h.Size {
			_, err := decodeHead(b)
			return b, err
		}
		h.Size = all
	}
}
