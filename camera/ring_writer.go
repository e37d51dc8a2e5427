package camera

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// RingWriter writes frames into a ring. It is for one goroutine of one
// process; readers in other processes never block it.
type RingWriter struct {
	ring   mapping
	ticket uint64
	fence  atomic.Uint64
}

// OpenWriter maps a ring for writing; that works only before SealRing. The
// file stays the caller's and may be closed at once.
func OpenWriter(f *os.File) (*RingWriter, error) {
	m, err := mapRing(f, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		return nil, fmt.Errorf("camera: open ring for writing: %w", err)
	}
	return &RingWriter{ring: m, ticket: m.ticket().Load()}, nil
}

// SlotBytes is the number of bytes of pixels that fit into a slot.
func (w *RingWriter) SlotBytes() int { return w.ring.geo.slotBytes }

// Write copies f into the next slot and publishes it as the newest frame. The
// caller has set everything in f, Seq included; readers expect it to rise. The
// error wraps ErrFrame or ErrTooLarge, and then nothing was published.
func (w *RingWriter) Write(f *Frame) error {
	if err := f.Check(); err != nil {
		return err
	}
	if len(f.Data) > w.ring.geo.slotBytes {
		return fmt.Errorf("%w: %d×%d pixels, %d bytes into %d", ErrTooLarge, f.Width, f.Height, len(f.Data), w.ring.geo.slotBytes)
	}
	next := w.ticket + 1
	slot := w.ring.slot(next)
	lock := word64(slot, slotLock)

	// Odd before any pixel changes. A store with release semantics alone lets
	// later plain stores overtake it on ARM; the load behind it does not, since
	// Go's atomics are sequentially consistent among each other.
	free := lock.Load() &^ 1
	lock.Store(free + 1)
	w.fence.Load()

	word64(slot, slotSeq).Store(f.Seq)
	word64(slot, slotCaptured).Store(uint64(f.CapturedAt))
	word64(slot, slotSize).Store(pack(f.Width, f.Height))
	word64(slot, slotLayout).Store(pack(f.Stride, int(f.Format)))
	copy(slot[slotHeader:], f.Data)

	lock.Store(free + 2)
	w.ticket = next
	w.ring.ticket().Store(next)
	return nil
}

// Close unmaps the ring. What was published stays readable.
func (w *RingWriter) Close() error { return w.ring.close() }

func pack(low, high int) uint64 { return uint64(uint32(low)) | uint64(uint32(high))<<32 }

func unpack(v uint64) (low, high uint32) { return uint32(v), uint32(v >> 32) }

// Monotonic is the time on CLOCK_MONOTONIC, which all processes of a machine
// share: the clock of Frame.CapturedAt.
func Monotonic() time.Duration {
	var ts unix.Timespec
	// It cannot fail for this clock on any Linux; zero would show as an
	// impossible age.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}
