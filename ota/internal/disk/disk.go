// Package disk is a simulated disk for tests: a store.FS that knows what is
// durable and what only seems to be. All operations pass one seam, at which the
// power can go, an error can come, or a bit can turn over.
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
	"slices"
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

type inode struct {
	name         string // the last it had
	data, synced []byte
	lost         bool // a sync failed: what is not yet durable never will be
}

// Disk is a simulated disk. It is safe for concurrent use.
type Disk struct {
	mu      sync.Mutex
	names   map[string]*inode
	durable map[string]*inode
	dirs    map[string]bool
	size    int64
	ops     int // that change something
	trace   []Op
	cutAt   int // of ops; 0: never
	cut     bool
	half    bool // the write under way is torn

	faultAt  int // in trace; 0: never
	fault    Fault
	injected *Op
	lasting  error
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
			copies[old] = &inode{name: name, data: b, synced: append([]byte(nil), b...)}
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

// Open implements store.FS.
func (d *Disk) Open(name string, flag int) (store.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.names[name]
	kind := Open
	switch {
	case n == nil && flag&os.O_CREATE != 0 && d.dirs[path.Dir(name)]:
		kind = Create
	case n != nil && flag&os.O_TRUNC != 0:
		kind = Empty
	}
	err := d.op(kind, name, func(bool) error {
		switch {
		case kind == Create:
			n = &inode{name: name}
			d.names[name] = n
		case kind == Empty:
			n.data = nil
		case n == nil:
			return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &file{d, n}, nil
}

// Rename implements store.FS.
func (d *Disk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.op(Rename, to, func(flip bool) error {
		n := d.names[from]
		if n == nil {
			return &fs.PathError{Op: "rename", Path: from, Err: fs.ErrNotExist}
		}
		d.names[to], n.name = n, to
		delete(d.names, from)
		if flip {
			d.damage(n)
		}
		return nil
	})
}

// damage turns a bit over on the disk itself.
func (d *Disk) damage(n *inode) {
	n.data = append([]byte(nil), n.data...)
	turn(n.data)
	n.synced = append([]byte(nil), n.data...)
}

// Remove implements store.FS.
func (d *Disk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.op(Remove, name, func(bool) error {
		if d.names[name] == nil {
			return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
		}
		delete(d.names, name)
		return nil
	})
}

// MkdirAll implements store.FS.
func (d *Disk) MkdirAll(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dirs[name] {
		return nil
	}
	return d.op(Mkdir, name, func(bool) error {
		d.dirs[name] = true
		return nil
	})
}

// List implements store.FS; the order is always the same.
func (d *Disk) List(name string) (out []string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err = d.op(List, name, func(bool) error {
		for n := range d.names {
			if path.Dir(n) == name {
				out = append(out, path.Base(n))
			}
		}
		slices.Sort(out)
		return nil
	})
	return out, err
}

// SyncDir implements store.FS.
func (d *Disk) SyncDir(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.op(SyncDir, name, func(bool) error {
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
	})
}

// Free implements store.FS.
func (d *Disk) Free() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lasting == syscall.ENOSPC {
		return 0, nil
	}
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

func (f *file) ReadAt(b []byte, off int64) (n int, err error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err = f.d.op(Read, f.n.name, func(flip bool) error {
		if off < int64(len(f.n.data)) {
			n = copy(b, f.n.data[off:])
		}
		if flip {
			turn(b[:n])
		}
		if n < len(b) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

// WriteAt writes half of what it is given when the power goes, and nothing
// when the disk is full.
func (f *file) WriteAt(b []byte, off int64) (n int, err error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	err = f.d.op(Write, f.n.name, func(flip bool) error {
		w := append([]byte(nil), b...)
		if f.d.half {
			w = w[:len(w)/2]
		}
		if flip {
			turn(w)
		}
		end := off + int64(len(w))
		grow := end - int64(len(f.n.data))
		if grow > 0 && f.d.used()+grow > f.d.size {
			return syscall.ENOSPC
		}
		if grow > 0 && len(w) > 0 {
			f.n.data = append(f.n.data, make([]byte, grow)...)
		}
		n = copy(f.n.data[min(off, int64(len(f.n.data))):], w)
		return nil
	})
	return n, err
}

func (f *file) Truncate(size int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.op(Cut, f.n.name, func(bool) error {
		if size < int64(len(f.n.data)) {
			f.n.data = f.n.data[:size]
			return nil
		}
		f.n.data = append(f.n.data, make([]byte, size-int64(len(f.n.data)))...)
		return nil
	})
}

func (f *file) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.op(Sync, f.n.name, func(flip bool) error {
		if f.n.lost {
			return nil // the bytes it should have written are given up
		}
		f.n.synced = append([]byte(nil), f.n.data...)
		if flip {
			f.d.damage(f.n)
		}
		return nil
	})
}

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *file) Close() error { return nil }
