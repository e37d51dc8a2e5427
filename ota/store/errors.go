package store

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
)

// What a caller may ask for with errors.Is.
var (
	// ErrNoSpace means that the disk is full, or would be.
	ErrNoSpace = errors.New("store: no space on the device")
	// ErrDigest means that bytes are not the ones their name promises.
	ErrDigest = errors.New("store: digest differs")
	// ErrMissing means that there is no such blob.
	ErrMissing = errors.New("store: not here")
	// ErrCorrupt is the kind of every *CorruptError.
	ErrCorrupt = errors.New("store: damaged file")
)

// CorruptError names a file that is damaged.
type CorruptError struct {
	Name string // below the state folder
	Why  string
}

// Error names the file and what is wrong with it.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("store: damaged file %s: %s", e.Name, e.Why)
}

// Unwrap makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Unwrap() error { return ErrCorrupt }

// wrap names operation and object, and gives the kinds of the operating
// system's errors their names here.
func wrap(op, name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrNoSpace):
		return fmt.Errorf("store: %s %s: %w", op, name, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("store: %s %s: %w: %w", op, name, ErrNoSpace, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("store: %s %s: %w: %w", op, name, ErrMissing, err)
	}
	return fmt.Errorf("store: %s %s: %w", op, name, err)
}
