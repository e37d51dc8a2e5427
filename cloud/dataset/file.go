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

func (f file) read() ([]byte, error) {
	r, size, err := f.open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // only read
	data := make([]byte, size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, unreadable(err)
	}
	return data, nil
}

// probe says whether the head of the file is that of a picture within limits.
func (f file) probe() error {
	r, _, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }() // only read
	_, err = readHeader(r)
	return err
}

// open opens regular files within the limit only. The check comes first: opening
// a named pipe would wait for its writer.
func (f file) open() (r *os.File, size int64, err error) {
	st, err := os.Stat(string(f))
	if err != nil {
		return nil, 0, unreadable(err)
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%w: no regular file", ErrUnreadable)
	}
	if st.Size() > MaxFileBytes {
		return nil, 0, fmt.Errorf("%w: %d bytes, allowed %d", ErrUnreadable, st.Size(), MaxFileBytes)
	}
	if r, err = os.Open(string(f)); err != nil {
		return nil, 0, unreadable(err)
	}
	return r, st.Size(), nil
}

// unreadable drops the path out of a file error: the caller names the sample.
func unreadable(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Errorf("%w: %w", ErrUnreadable, err)
}
