package disk

import (
	"slices"
	"syscall"
)

// Fault is what goes wrong at one operation.
type Fault int

// The faults. What a cut leaves of that which was not durable is the Mode's
// matter.
const (
	CutBefore Fault = iota // the power goes before the operation has any effect
	CutAfter               // it goes after the whole effect, before anybody hears of it
	CutTorn                // half of a write happens
	NoSpace                // ENOSPC, this once
	Full                   // ENOSPC from here on, where an operation needs space
	Broken                 // EIO, this once; a sync that fails gives up the bytes
	Dead                   // EIO from here on
	Flip                   // the operation succeeds, with one bit turned over
	NumFaults
)

// String names the fault.
func (f Fault) String() string {
	return [...]string{"cut-before", "cut-after", "cut-torn", "no-space", "full", "broken", "dead", "flip"}[f]
}

// Op is one operation on the disk, or on what shares its power.
type Op struct {
	Kind Kind
	Name string // of the file or folder
}

// Kind is what an operation does.
type Kind string

// The kinds; those that read change nothing.
const (
	Create  Kind = "create"
	Empty   Kind = "empty"
	Write   Kind = "write"
	Cut     Kind = "truncate"
	Sync    Kind = "sync"
	Rename  Kind = "rename"
	Remove  Kind = "remove"
	Mkdir   Kind = "mkdir"
	SyncDir Kind = "syncdir"
	Open    Kind = "open"
	Read    Kind = "read"
	List    Kind = "list"
	Device  Kind = "device" // what Do did
)

func (k Kind) reads() bool { return k == Open || k == Read || k == List }

// needsSpace says whether a full disk can refuse it.
func (k Kind) needsSpace() bool {
	return k == Create || k == Write || k == Mkdir || k == Rename || k == Sync
}

// Cuts says whether the fault takes the power away.
func (f Fault) Cuts() bool { return f <= CutTorn }

// Fits says whether a fault can happen to an operation and differs there from
// its neighbours.
func (f Fault) Fits(k Kind) bool {
	switch f {
	case CutBefore, CutAfter:
		return !k.reads() // reading leaves no trace
	case CutTorn:
		return k == Write
	case NoSpace, Full:
		return k.needsSpace()
	case Flip:
		return k == Write || k == Rename || k == Sync || k == Read || k == Device
	}
	return true
}

// Inject lets the n-th operation from now, counted from 1 and those that read
// included, go wrong. Where the fault cannot happen nothing does; Injected
// tells.
func (d *Disk) Inject(n int, f Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faultAt, d.fault, d.injected = len(d.trace)+n, f, nil
}

// Injected is the operation that went wrong; nil when none did so far.
func (d *Disk) Injected() *Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.injected
}

// Trace lists all operations so far, those that read included.
func (d *Disk) Trace() []Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.trace)
}

// Repair ends a lasting fault.
func (d *Disk) Repair() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lasting = nil
}

// Do runs an operation of another device on the same power supply, a TPM's
// command for one, as an operation of this disk. It gets true when one bit of
// the answer is to be wrong.
func (d *Disk) Do(name string, effect func(flip bool) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.op(Device, name, effect)
}

// op is the seam: each operation passes here, is counted, and goes wrong when
// it is to. effect gets true when it is to turn a bit over.
func (d *Disk) op(k Kind, name string, effect func(flip bool) error) error {
	if d.cut {
		return ErrCut
	}
	d.trace = append(d.trace, Op{k, name})
	if !k.reads() {
		d.ops++
		if d.ops == d.cutAt {
			d.cut = true
			d.torn(k, effect)
			return ErrCut
		}
	}
	if d.lasting != nil && (d.lasting == syscall.EIO || k.needsSpace()) && k != Device {
		return d.lasting
	}
	if len(d.trace) != d.faultAt || !d.fault.Fits(k) {
		return effect(false)
	}
	d.injected = &Op{k, name}
	switch d.fault {
	case CutBefore:
		d.cut = true
	case CutTorn:
		d.cut = true
		d.torn(k, effect)
	case CutAfter:
		_ = effect(false) // whatever it says, nobody hears it
		d.cut = true
	case NoSpace:
		return syscall.ENOSPC
	case Full:
		d.lasting = syscall.ENOSPC
		return syscall.ENOSPC
	case Broken:
		d.giveUp(k, name)
		return syscall.EIO
	case Dead:
		d.lasting = syscall.EIO
		return syscall.EIO
	case Flip:
		return effect(true)
	}
	return ErrCut
}

// torn lets half of a write happen.
func (d *Disk) torn(k Kind, effect func(bool) error) {
	if k != Write {
		return
	}
	d.half = true
	_ = effect(false) // the power is gone
	d.half = false
}

// giveUp lets a failed sync lose the bytes, as Linux does: they can still be
// read, but no later sync makes them durable.
func (d *Disk) giveUp(k Kind, name string) {
	if n := d.names[name]; k == Sync && n != nil {
		n.lost = true
	}
}

// turn turns over one bit in the middle.
func turn(b []byte) {
	if len(b) > 0 {
		b[len(b)/2] ^= 1 << (len(b) % 8)
	}
}
