package main

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
)

// readers are the eventfds to signal for each frame. Safe for concurrent use.
type readers struct {
	mu     sync.Mutex
	events map[uint32]int
}

// add takes fd over. A reader that comes late is told at once that there is a
// frame.
func (r *readers) add(id uint32, fd int, frames bool) error {
	// A reader cannot block the camera: not even one that fills its counter.
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return fmt.Errorf("reader %d: %w", id, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.events == nil {
		r.events = make(map[uint32]int)
	}
	if old, found := r.events[id]; found {
		unix.Close(old)
	} else if len(r.events) == ipc.MaxReaders {
		unix.Close(fd)
		return fmt.Errorf("%w: more than %d readers", ipc.ErrProtocol, ipc.MaxReaders)
	}
	r.events[id] = fd
	if frames {
		return camera.Signal(fd)
	}
	return nil
}

func (r *readers) remove(id uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if fd, found := r.events[id]; found {
		unix.Close(fd)
		delete(r.events, id)
	}
}

// signal wakes all readers. One whose event is broken is left out: it is the
// parent's to notice.
func (r *readers) signal() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fd := range r.events {
		_ = camera.Signal(fd)
	}
}

func (r *readers) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, fd := range r.events {
		unix.Close(fd)
	}
	r.events = nil
}
