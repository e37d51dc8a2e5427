// Package disk is a simulated disk for tests: a store.FS that knows what is
// durable and what only seems to be, that can lose power before any operation
// or in the middle of a write, and that can be full.
//
// Bytes become durable by File.Sync, names by SyncDir. After a cut, AfterCut
// gives the disk as the next start may find it; what was not yet durable is
// there, or not, as the Mode says.
package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"

	"github.com/droverhq/drover/ota/store"
)

// ErrCut is every operation's error from the cut on.
var ErrCut = errors.New("disk: the power is gone")

// Mode says what a cut leaves of that which was not durable.
type Mode int

// The modes: any real disk lies between them.
const (
	Lost      Mode = iota // nothing
	Kept                  // everything: a program was killed, the machine ran on
	NamesOnly             // names without the bytes behind them
	NumModes
)

type inode struct{ data, synced []byte }

// Disk is a simulated disk. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	names   map[string]*inode
	durable map[string]*inode
	dirs    map[string]bool
	size    int64
	ops     int
	cutAt   int // 0: never
	cut     bool
}

// New is an empty disk of that many bytes.
func New(size int64) *Disk {
	return &Disk{names: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{".": true}, size: size}
}

// CutAt lets the power go at the n-th operation from now, counted from 1.
func (d *Disk) CutAt(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cutAt = d.ops + n
}

// Ops counts the operations that change something.
func (d *Disk) Ops() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ops
}

// IsCut says whether the power is gone.
func (d *Disk) IsCut() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cut
}

// Resize changes the size, so that a disk may become full or have room again.
func (d *Disk) Resize(size int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = size
}

// AfterCut is the disk as the next start finds it. It takes the power away, if
// that has not happened yet.
func (d *Disk) AfterCut(m Mode) *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = true
	n := New(d.size)
	for k := range d.dirs {
		n.dirs[k] = true
	}
	names := d.names
	if m == Lost {
		names = d.durable
	}
	copies := map[*inode]*inode{}
	for name, old := range names {
		if copies[old] == nil {
			b := old.synced
			if m == Kept {
				b = old.data
			}
			b = append([]byte(nil), b...)
			copies[old] = &inode{b, append([]byte(nil), b...)}
		}
		n.names[name], n.durable[name] = copies[old], copies[old]
	}
	return n
}

// Names lists all files.
func (d *Disk) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for n := range d.names {
		out = append(out, n)
	}
	return out
}

// Damage changes the bytes of a file in place, durably.
func (d *Disk) Damage(name string, change func([]byte) []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	n.data = change(append([]byte(nil), n.data...))
	n.synced = append([]byte(nil), n.data...)
}

// step counts an operation and says whether the power still is there.
func (d *Disk) step() error {
	if d.cut {
		return ErrCut
	}
	d.ops++
	if d.ops == d.cutAt {
		d.cut = true
		return ErrCut
	}
	return nil
}

// Open implements store.FS.
func (d *Disk) Open(name string, flag int) (store.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut {
		return nil, ErrCut
	}
	n := d.names[name]
	if n == nil {
		if flag&os.O_CREATE == 0 || !d.dirs[path.Dir(name)] {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		if err := d.step(); err != nil {
			return nil, err
		}
		n = &inode{}
		d.names[name] = n
	} else if flag&os.O_TRUNC != 0 {
		if err := d.step(); err != nil {
			return nil, err
		}
		n.data = nil
	}
	return &file{d, n}, nil
}

// Rename implements store.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	if d.names[from] == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

// Remove implements store.FS.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	if d.names[name] == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	delete(d.names, name)
	return nil
}

// MkdirAll implements store.FS.
func (d *Disk) MkdirAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs[name] {
		return nil
	}
	if err := d.step(); err != nil {
		return err
	}
	d.dirs[name] = true
	return nil
}

// List implements store.FS.
func (d *Disk) List(name string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut {
		return nil, ErrCut
	}
	var out []string
	for n := range d.names {
		if path.Dir(n) == name {
			out = append(out, path.Base(n))
		}
	}
	return out, nil
}

// SyncDir implements store.FS.
func (d *Disk) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.step(); err != nil {
		return err
	}
	for n := range d.durable {
		if path.Dir(n) == name && d.names[n] == nil {
			delete(d.durable, n)
		}
	}
	for n, i := range d.names {
		if path.Dir(n) == name {
			d.durable[n] = i
		}
	}
	return nil
}

// Free implements store.FS.
func (d *Disk) Free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return max(0, d.size-d.used()), nil
}

func (d *Disk) used() (n int64) {
	for _, i := range d.names {
		n += int64(len(i.data))
	}
	return n
}

type file struct {
	d *Disk
	n *inode
}

func (f *file) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.cut {
		return 0, ErrCut
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes half of what it is given when the power goes, and nothing
// when the disk is full.
func (f *file) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.cut {
		return 0, ErrCut
	}
	err := f.d.step()
	grow := off + int64(len(b)) - int64(len(f.n.data))
	if err == nil && grow > 0 && f.d.used()+grow > f.d.size {
		err = syscall.ENOSPC
	}
	switch {
	case errors.Is(err, syscall.ENOSPC):
		b = nil
	case err != nil:
		b = b[:len(b)/2]
	}
	if end := off + int64(len(b)); len(b) > 0 && end > int64(len(f.n.data)) {
		f.n.data = append(f.n.data, make([]byte, end-int64(len(f.n.data)))...)
	}
	copy(f.n.data[min(off, int64(len(f.n.data))):], b)
	return len(b), err
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.step(); err != nil {
		return err
	}
	if size < int64(len(f.n.data)) {
		f.n.data = f.n.data[:size]
		return nil
	}
	f.n.data = append(f.n.data, make([]byte, size-int64(len(f.n.data)))...)
	return nil
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.d.step(); err != nil {
		return err
	}
	f.n.synced = append([]byte(nil), f.n.data...)
	return nil
}

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *file) Close() error { return nil }
