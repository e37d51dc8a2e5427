package dataset

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/droverhq/drover/camera"
)

// file is a picture in a file.
type file string

func (f file) load(context.Context) (*camera.Frame, error) {
	data, err := f.read()
	if err != nil {
		return nil, err
	}
	return Decode(data)
}

func (f file) digest(context.Context) (d [sha256.Size]byte, err error) {
	data, err := f.read()
	if err != nil {
		return d, err
	}
	return sha256.Sum256(data), nil
}

func (f file) read() ([]byte, error) { return f.head(MaxFileBytes) }

// head reads a whole file if it has at most limit bytes.
func (f file) head(limit int64) (data []byte, err error) {
	r, err := os.Open(string(f))
	if err != nil {
		return nil, unreadable(err)
	}
	defer func() { _ = r.Close() }() // only read
	st, err := r.Stat()
	if err != nil {
		return nil, unreadable(err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: no regular file", ErrUnreadable)
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%w: %d bytes, allowed %d", ErrUnreadable, st.Size(), limit)
	}
	data = make([]byte, st.Size())
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, unreadable(err)
	}
	return data, nil
}

// probe says whether the head of the file is that of a picture within limits.
func (f file) probe() error {
	r, err := os.Open(string(f))
	if err != nil {
		return unreadable(err)
	}
	defer func() { _ = r.Close() }() // only read
	st, err := r.Stat()
	if err != nil {
		return unreadable(err)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%w: no regular file", ErrUnreadable)
	}
	if st.Size() > MaxFileBytes {
		return fmt.Errorf("%w: %d bytes, allowed %d", ErrUnreadable, st.Size(), MaxFileBytes)
	}
	_, err = readHeader(r)
	return err
}

// unreadable drops the path out of a file error: the caller names the sample.
func unreadable(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}
