package store

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FS is the seam between the store and the operating system: every operation
// that can fail or be cut short passes through it, so that a test can make it
// so. Names are relative to the state folder, with slashes. It has more than
// five methods because the operating system does. Implementations are safe for
// concurrent use.
type FS interface {
	// Open opens a file with os.O_* flags, made readable by its owner alone.
	Open(name string, flag int) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	MkdirAll(name string) error
	// List names the entries of a folder.
	List(name string) ([]string, error)
	// SyncDir makes renames and removals in a folder durable.
	SyncDir(name string) error
	// Free is the bytes a program without privileges may still write.
	Free() (int64, error)
}

// File is an open file of an FS.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
	Sync() error
	Size() (int64, error)
}

// Dir is the FS of a real folder. Names cannot lead out of it, not even by
// symbolic links. Close releases the folder.
type Dir struct {
	path string
	root *os.Root
}

// OpenDir opens a state folder, making it when it is missing.
func OpenDir(path string) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, wrap("make folder", path, err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, wrap("open folder", path, err)
	}
	return &Dir{path: path, root: root}, nil
}

// Path is the folder's path.
func (d *Dir) Path() string { return d.path }

// Close releases the folder; files opened from it stay open.
func (d *Dir) Close() error { return d.root.Close() }

// Open implements FS.
func (d *Dir) Open(name string, flag int) (File, error) {
	f, err := d.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// Rename implements FS.
func (d *Dir) Rename(from, to string) error { return d.root.Rename(from, to) }

// Remove implements FS.
func (d *Dir) Remove(name string) error { return d.root.Remove(name) }

// MkdirAll implements FS.
func (d *Dir) MkdirAll(name string) error { return d.root.MkdirAll(name, 0o700) }

// List implements FS.
func (d *Dir) List(name string) ([]string, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// SyncDir implements FS.
func (d *Dir) SyncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Free implements FS.
func (d *Dir) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(d.path, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", d.path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

type osFile struct{ *os.File }

// Size implements File.
func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
