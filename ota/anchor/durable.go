package anchor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

const maxFile = 16 << 10

// Folder is the seam between the file anchor and the operating system, so that
// a test can let the power go at every operation. Names have no folder part.
type Folder interface {
	// Open opens a file with os.O_* flags, made readable by its owner alone.
	Open(name string, flag int) (FolderFile, error)
	Rename(from, to string) error
	Remove(name string) error
	// Sync makes renames durable.
	Sync() error
}

// FolderFile is an open file of a Folder.
type FolderFile interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error
}

// osFolder is the path of a real folder.
type osFolder string

func (d osFolder) Open(name string, flag int) (FolderFile, error) {
	f, err := os.OpenFile(filepath.Join(string(d), name), flag, 0o600)
	if err != nil {
		return nil, err // a nil *os.File must not become a FolderFile
	}
	return f, nil
}

func (d osFolder) Rename(from, to string) error {
	return os.Rename(filepath.Join(string(d), from), filepath.Join(string(d), to))
}

func (d osFolder) Remove(name string) error { return os.Remove(filepath.Join(string(d), name)) }

func (d osFolder) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// tempOf is the name under which a file is written. It begins with a dot.
func tempOf(name string) string { return ".new-" + name }

// writeFile replaces path durably, mode 0600.
func writeFile(path string, b []byte) error {
	return replace(osFolder(filepath.Dir(path)), filepath.Base(path), b)
}

// replace puts b under a name: afterwards, cut or not, the name holds the old
// bytes or all of the new ones.
func replace(d Folder, name string, b []byte) error {
	temp := tempOf(name)
	if err := writeTemp(d, temp, b); err != nil {
		return errors.Join(err, d.Remove(temp))
	}
	if err := d.Rename(temp, name); err != nil {
		return errors.Join(err, d.Remove(temp))
	}
	return d.Sync()
}

func writeTemp(d Folder, temp string, b []byte) error {
	f, err := d.Open(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Sync(), f.Close())
}

func readFile(path string) ([]byte, error) {
	return read(osFolder(filepath.Dir(path)), filepath.Base(path))
}

// read reads a whole file of at most maxFile bytes.
func read(d Folder, name string) ([]byte, error) {
	f, err := d.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, maxFile+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s: over %d bytes", name, maxFile)
	}
	return b, nil
}
