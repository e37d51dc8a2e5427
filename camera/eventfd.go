package camera

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// NewEvent makes an eventfd that says "there is a newer frame". The parent
// sends its descriptor (EventFD) to the camera child, which signals, and to a
// reader, which waits. The caller closes the file.
func NewEvent() (*os.File, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("camera: eventfd: %w", err)
	}
	return os.NewFile(uintptr(fd), "frame-event"), nil
}

// EventFromFD takes over a received descriptor as an event to wait for.
func EventFromFD(fd int) (*os.File, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("camera: event descriptor %d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "frame-event"), nil
}

// EventFD is the descriptor of an event, for Signal or for sending. Unlike
// os.File.Fd it leaves the file non-blocking, which Wait and Signal need. It
// stays the file's and is -1 when that is closed.
func EventFD(ev *os.File) int {
	out := -1
	if rc, err := ev.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { out = int(fd) })
	}
	return out
}

// Signal wakes whoever waits for the eventfd fd. It never waits for a reader:
// signals that were not taken yet merge into one. The descriptor must be
// non-blocking, as those of NewEvent and EventFromFD are.
func Signal(fd int) error {
	var one = [8]byte{1} // a counter in native order: any value above 0 will do
	for {
		_, err := unix.Write(fd, one[:])
		switch {
		case err == unix.EINTR:
			continue
		case err == nil || err == unix.EAGAIN: // full means signalled
			return nil
		}
		return fmt.Errorf("camera: signal event %d: %w", fd, err)
	}
}

// Wait waits until the event is signalled, which it takes back, or the timeout
// is over: then it returns false and no error. A timeout of 0 or less only
// looks. Closing the event from another goroutine ends the wait with
// os.ErrClosed (wrapped).
func Wait(ev *os.File, timeout time.Duration) (bool, error) {
	// A deadline that has passed already would not even look.
	if err := ev.SetReadDeadline(time.Now().Add(max(timeout, time.Millisecond))); err != nil {
		if !errors.Is(err, os.ErrNoDeadline) {
			err = os.ErrClosed // package os has an error of its own here
		}
		return false, fmt.Errorf("camera: wait for frame: %w", err)
	}
	var counter [8]byte
	_, err := ev.Read(counter[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("camera: wait for frame: %w", err)
	}
	return true, nil
}
