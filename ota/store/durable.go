package store

import (
	"fmt"
	"io"
	"os"
	"path"
)

const tmpSuffix = ".tmp"

// writeDurable puts data under a name: afterwards, cut or not, the name holds
// the old bytes or all of the new ones.
func writeDurable(fsys FS, name string, data []byte) error {
	tmp := name + tmpSuffix
	f, err := fsys.Open(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return wrap("create", tmp, err)
	}
	if _, err := f.WriteAt(data, 0); err != nil {
		f.Close()
		fsys.Remove(tmp) // the space it took may be what others lack
		return wrap("write", tmp, err)
	}
	if err := publish(fsys, f, tmp, name); err != nil {
		fsys.Remove(tmp)
		return err
	}
	return nil
}

// publish is the only way a file gets its final name: sync, close, rename,
// sync the folders. It always closes f.
func publish(fsys FS, f File, from, to string) error {
	if err := f.Sync(); err != nil {
		f.Close()
		return wrap("sync", from, err)
	}
	if err := f.Close(); err != nil {
		return wrap("close", from, err)
	}
	if err := fsys.Rename(from, to); err != nil {
		return wrap("rename to", to, err)
	}
	if err := fsys.SyncDir(path.Dir(to)); err != nil {
		return wrap("sync folder of", to, err)
	}
	if d := path.Dir(from); d != path.Dir(to) {
		return wrap("sync folder of", from, fsys.SyncDir(d))
	}
	return nil
}

// readBounded reads a whole file of at most max bytes.
func readBounded(fsys FS, name string, max int64) ([]byte, error) {
	f, err := fsys.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, wrap("open", name, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, wrap("stat", name, err)
	}
	if size > max {
		return nil, &CorruptError{Name: name, Why: fmt.Sprintf("%d bytes, allowed %d", size, max)}
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), b); err != nil {
		return nil, wrap("read", name, err)
	}
	return b, nil
}
