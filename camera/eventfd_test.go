package camera

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEvent(t *testing.T) *os.File {
	t.Helper()
	ev, err := NewEvent()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ev.Close() })
	return ev
}

func TestSignalsMerge(t *testing.T) {
	ev := newEvent(t)
	for range 3 {
		if err := Signal(EventFD(ev)); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := Wait(ev, time.Minute); !ok || err != nil {
		t.Fatalf("after three signals: %v, %v", ok, err)
	}
	if ok, err := Wait(ev, 0); ok || err != nil {
		t.Fatalf("the signals were taken already: %v, %v", ok, err)
	}
}

func TestWaitIsWokenAcrossDescriptors(t *testing.T) {
	ev := newEvent(t)
	// As after a trip through a socket: another descriptor of the same event.
	fd, err := unix.Dup(EventFD(ev))
	if err != nil {
		t.Fatal(err)
	}
	waiter, err := EventFromFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	defer waiter.Close()
	done := make(chan error, 1)
	go func() {
		ok, err := Wait(waiter, time.Minute)
		if err == nil && !ok {
			err = errors.New("timed out")
		}
		done <- err
	}()
	if err := Signal(EventFD(ev)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestAFullCounterDoesNotBlockTheSignaller(t *testing.T) {
	ev := newEvent(t)
	fd := EventFD(ev)
	var full [8]byte
	binary.NativeEndian.PutUint64(full[:], ^uint64(0)-1)
	if _, err := unix.Write(fd, full[:]); err != nil {
		t.Fatal(err)
	}
	if err := Signal(fd); err != nil {
		t.Fatal(err)
	}
}

func TestClosingEndsTheWait(t *testing.T) {
	ev := newEvent(t)
	done := make(chan error, 1)
	go func() {
		_, err := Wait(ev, time.Minute)
		done <- err
	}()
	ev.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("wait ended with %v, want os.ErrClosed", err)
	}
	if fd := EventFD(ev); fd != -1 {
		t.Errorf("descriptor %d of a closed event", fd)
	}
	if err := Signal(-1); err == nil {
		t.Error("a signal to nobody succeeded")
	}
}

func TestMonotonicDoesNotGoBack(t *testing.T) {
	last := Monotonic()
	if last <= 0 {
		t.Fatalf("clock says %v", last)
	}
	for range 1000 {
		now := Monotonic()
		if now < last {
			t.Fatalf("%v after %v", now, last)
		}
		last = now
	}
}
