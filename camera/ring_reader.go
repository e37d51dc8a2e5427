package camera

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// readTries bounds how often Next starts again when the writer overtakes it. A
// slot is overwritten only after all others, so that one retry is rare already.
const readTries = 8

// RingReader reads the newest frame of a ring. It is for one goroutine; any
// number of readers may be open. Nothing it reads is trusted.
type RingReader struct {
	ring  mapping
	torn  uint64
	fence atomic.Uint64
}

// OpenReader maps a ring for reading. The file stays the caller's and may be
// closed at once. The error wraps ErrRing when f is no ring.
func OpenReader(f *os.File) (*RingReader, error) {
	m, err := mapRing(f, unix.PROT_READ)
	if err != nil {
		return nil, fmt.Errorf("camera: open ring for reading: %w", err)
	}
	return &RingReader{ring: m}, nil
}

// Next copies the newest frame into dst if its Seq is above after. It reuses
// dst.Data and makes it grow when needed. With ok false and no error there is
// no such frame now, or the writer was faster than the copy each time (Torn):
// wait for the next signal. An error wraps ErrFrame: the writer published an
// impossible header; what dst holds after false or an error is undefined. Next
// never blocks.
func (r *RingReader) Next(after uint64, dst *Frame) (ok bool, err error) {
	for range readTries {
		ticket := r.ring.ticket().Load()
		if ticket == 0 {
			return false, nil
		}
		slot := r.ring.slot(ticket)
		lock := word64(slot, slotLock)
		before := lock.Load()
		if before&1 != 0 {
			runtime.Gosched()
			continue
		}
		if word64(slot, slotSeq).Load() <= after {
			return false, nil
		}
		err = r.copyOut(slot, dst)
		// The copy must be over before the lock is read again. On ARM a load may
		// move behind a later acquiring load, but not behind a store with release
		// semantics that stands before it.
		r.fence.Store(0)
		if lock.Load() == before {
			return err == nil && dst.Seq > after, err
		}
	}
	r.torn++
	return false, nil
}

// copyOut takes the header out of shared memory, judges that copy, and copies
// the pixels.
func (r *RingReader) copyOut(slot []byte, dst *Frame) error {
	width, height := unpack(word64(slot, slotSize).Load())
	stride, format := unpack(word64(slot, slotLayout).Load())
	keep := dst.Data
	f := Frame{
		Seq:        word64(slot, slotSeq).Load(),
		CapturedAt: time.Duration(word64(slot, slotCaptured).Load()),
		Width:      int(width),
		Height:     int(height),
		Stride:     int(stride),
		Format:     PixelFormat(format),
	}
	bytes := uint64(stride) * uint64(height)
	pixels := slot[slotHeader : slotHeader+r.ring.geo.slotBytes]
	if bytes <= uint64(len(pixels)) {
		f.Data = pixels[:bytes]
	}
	if err := f.Check(); err != nil {
		return err
	}
	if f.CapturedAt < 0 {
		return fmt.Errorf("%w: captured at %d ns", ErrFrame, f.CapturedAt)
	}
	if cap(keep) < len(f.Data) {
		keep = make([]byte, len(f.Data))
	}
	keep = keep[:len(f.Data)]
	copy(keep, f.Data)
	*dst = f
	dst.Data = keep
	return nil
}

// Torn counts the calls of Next that gave up because the writer was faster.
func (r *RingReader) Torn() uint64 { return r.torn }

// Close unmaps the ring; frames already copied stay valid.
func (r *RingReader) Close() error { return r.ring.close() }
