package ipc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair gives both ends as Conns.
func pair(t *testing.T) (parent, child *Conn) {
	t.Helper()
	parent, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { parent.Close() })
	fd, err := unix.Dup(int(file.Fd()))
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	child, err = FromFD(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { child.Close() })
	return parent, child
}

// rawPair gives a Conn and the bare descriptor of the other end, which may send
// what no Conn would.
func rawPair(t *testing.T) (*Conn, int) {
	t.Helper()
	conn, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); file.Close() })
	return conn, int(file.Fd())
}

func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestMessagesArriveWhole(t *testing.T) {
	parent, child := pair(t)
	buf := make([]byte, MaxMessage)
	for _, size := range []int{0, 1, 4095, MaxMessage - headerLen} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if err := parent.Send(byte(size%200), want); err != nil {
			t.Fatal(err)
		}
		got, err := child.Recv(buf)
		if err != nil {
			t.Fatal(err)
		}
		if got.Kind != byte(size%200) || !bytes.Equal(got.Payload, want) || len(got.FDs) != 0 {
			t.Errorf("%d bytes: got kind %d, %d bytes, %d descriptors", size, got.Kind, len(got.Payload), len(got.FDs))
		}
	}
}

func TestDescriptorsTravel(t *testing.T) {
	parent, child := pair(t)
	var fds []int
	for i := range MaxFDs {
		f, err := SealedMemfd("x", fmt.Appendf(nil, "file %d", i))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fds = append(fds, int(f.Fd()))
	}
	if err := parent.Send(1, []byte("four"), fds...); err != nil {
		t.Fatal(err)
	}
	before := openFDs(t)
	msg, err := child.Recv(make([]byte, MaxMessage))
	if err != nil {
		t.Fatal(err)
	}
	if len(msg.FDs) != MaxFDs {
		t.Fatalf("%d descriptors, want %d", len(msg.FDs), MaxFDs)
	}
	for i, fd := range msg.FDs {
		data, err := ReadSealed(fd, 100)
		if err != nil || string(data) != fmt.Sprintf("file %d", i) {
			t.Errorf("descriptor %d: %q, %v", i, data, err)
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d would leak into a new program (%#x, %v)", i, flags, err)
		}
	}
	msg.CloseFDs()
	msg.CloseFDs() // twice is no harm: they are forgotten
	if after := openFDs(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestSendRefusesWhatIsTooMuch(t *testing.T) {
	parent, _ := pair(t)
	if err := parent.Send(1, make([]byte, MaxMessage-headerLen+1)); err == nil {
		t.Error("an oversized message was sent")
	}
	if err := parent.Send(1, nil, 0, 0, 0, 0, 0); err == nil {
		t.Error("five descriptors were sent")
	}
}

// Whatever the other side sends: an error of the right kind, no descriptor left
// behind.
func TestBrokenPackets(t *testing.T) {
	dev, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	fd := int(dev.Fd())
	rights := func(n int) []byte {
		fds := make([]int, n)
		for i := range fds {
			fds[i] = fd
		}
		return unix.UnixRights(fds...)
	}
	for _, tt := range []struct {
		name string
		data []byte
		oob  []byte
	}{
		{"one byte", []byte{Version}, nil},
		{"one byte with a descriptor", []byte{Version}, rights(1)},
		{"older version", []byte{Version - 1, 1, '{', '}'}, rights(2)},
		{"newer version", []byte{Version + 1, 1, '{', '}'}, nil},
		{"one byte too long", append([]byte{Version, 1}, make([]byte, MaxMessage-headerLen+1)...), rights(1)},
		{"too many descriptors", []byte{Version, 1}, rights(MaxFDs + 1)},
		{"far too many descriptors", []byte{Version, 1}, rights(200)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conn, raw := rawPair(t)
			before := openFDs(t)
			if err := unix.Sendmsg(raw, tt.data, tt.oob, nil, 0); err != nil {
				t.Fatal(err)
			}
			msg, err := conn.Recv(make([]byte, MaxMessage))
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("got kind %d, %d bytes, %v; want ErrProtocol", msg.Kind, len(msg.Payload), err)
			}
			if after := openFDs(t); after != before {
				t.Errorf("%d descriptors before, %d after", before, after)
			}
		})
	}
}

func TestCredentialsAreNotMistakenForDescriptors(t *testing.T) {
	conn, raw := rawPair(t)
	ucred := unix.UnixCredentials(&unix.Ucred{Pid: int32(os.Getpid()), Uid: uint32(os.Getuid()), Gid: uint32(os.Getgid())})
	if err := unix.Sendmsg(raw, []byte{Version, 9, 'x'}, ucred, nil, 0); err != nil {
		t.Fatal(err)
	}
	msg, err := conn.Recv(make([]byte, MaxMessage))
	if err != nil || msg.Kind != 9 || len(msg.FDs) != 0 {
		t.Errorf("got %+v, %v", msg, err)
	}
}

func TestEndOfTheOtherSide(t *testing.T) {
	parent, child := pair(t)
	if err := parent.Send(3, []byte("last words")); err != nil {
		t.Fatal(err)
	}
	parent.Close()
	buf := make([]byte, MaxMessage)
	if msg, err := child.Recv(buf); err != nil || string(msg.Payload) != "last words" {
		t.Errorf("what was sent before closing is lost: %q, %v", msg.Payload, err)
	}
	if _, err := child.Recv(buf); err != io.EOF {
		t.Errorf("receive: %v, want io.EOF", err)
	}
	if err := child.Send(1, nil); !errors.Is(err, unix.EPIPE) {
		t.Errorf("send: %v, want EPIPE", err)
	}
}

func TestDeadlineAndClose(t *testing.T) {
	parent, child := pair(t)
	buf := make([]byte, MaxMessage)
	if err := child.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := child.Recv(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("receive: %v, want os.ErrDeadlineExceeded", err)
	}
	if err := child.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := child.Recv(buf)
		done <- err
	}()
	child.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("receive on a closed end: %v", err)
	}
	// Send blocks while the buffer is full; a deadline ends that.
	full, _ := rawPair(t)
	if err := full.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	var err error
	for range 1000 {
		if err = full.Send(1, make([]byte, 64*1024)); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("send into a full buffer: %v", err)
	}
	_ = parent
}

func TestSendersDoNotMix(t *testing.T) {
	const senders, each = 4, 200
	parent, child := pair(t)
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for i := range each {
				if err := parent.Send(byte(s), bytes.Repeat([]byte{byte(s)}, i*7)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	buf := make([]byte, MaxMessage)
	next := [senders]int{}
	for range senders * each {
		msg, err := child.Recv(buf)
		if err != nil {
			t.Fatal(err)
		}
		if len(msg.Payload) != next[msg.Kind]*7 || bytes.Count(msg.Payload, []byte{msg.Kind}) != len(msg.Payload) {
			t.Fatalf("message %d of sender %d is broken: %d bytes", next[msg.Kind], msg.Kind, len(msg.Payload))
		}
		next[msg.Kind]++
	}
	wg.Wait()
}

func TestSealedMemfd(t *testing.T) {
	want := []byte(strings.Repeat("model ", 1000))
	f, err := SealedMemfd("m", want)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := ReadSealed(int(f.Fd()), int64(len(want))); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write: %v, want EPERM", err)
	}
	if err := f.Truncate(1); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate: %v, want EPERM", err)
	}
	if _, err := ReadSealed(int(f.Fd()), int64(len(want))-1); !errors.Is(err, ErrProtocol) {
		t.Errorf("a memfd over the limit: %v", err)
	}
	empty, err := SealedMemfd("e", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if got, err := ReadSealed(int(empty.Fd()), 10); err != nil || len(got) != 0 {
		t.Errorf("an empty one: %v, %v", got, err)
	}
}

func TestReadSealedTrustsNothing(t *testing.T) {
	unsealed, err := unix.MemfdCreate("u", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(unsealed)
	dev, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	check := func(name string, fd int) {
		t.Helper()
		if data, err := ReadSealed(fd, 1<<20); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %d bytes, %v; want ErrProtocol", name, len(data), err)
		}
	}
	check("no seals", unsealed)
	for name, seal := range map[string]int{"growth sealed": unix.F_SEAL_GROW, "and shrinking": unix.F_SEAL_SHRINK} {
		if _, err := unix.FcntlInt(uintptr(unsealed), unix.F_ADD_SEALS, seal); err != nil {
			t.Fatal(err)
		}
		check(name, unsealed)
	}
	check("a device", int(dev.Fd()))
	check("a closed descriptor", 1<<20)
}
