// Package ipc is how a parent and its child processes talk on one device: a
// SOCK_SEQPACKET socketpair that carries small messages and file descriptors.
//
// One message is one packet: a byte of protocol version, a byte of message
// kind, then the payload (JSON for control, fixed binary for results). Kinds
// are defined by the two ends: drover-camera's in camera/ipc/camera.go,
// drover-infer's in infer/host. A packet never exceeds MaxMessage bytes and
// MaxFDs descriptors; what is longer, has another version or was truncated by
// the kernel is an error, never a partial message. Larger things travel as
// sealed memfds beside a message.
//
// The parent treats every message of a child as hostile input.
package ipc

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of one message, both directions.
const (
	Version    = 1
	MaxMessage = 96 * 1024 // bytes, header included
	MaxFDs     = 4
	headerLen  = 2
)

// ChildFD is the number under which a child finds its end of the pair.
const ChildFD = 3

// ErrProtocol is wrapped by every error that means the other side broke the
// protocol; the conn is of no use afterwards and the child should be killed.
var ErrProtocol = errors.New("ipc: protocol violation")

// Conn is one end of the pair. Send may be called from several goroutines;
// Recv from one at a time. Close unblocks both.
type Conn struct {
	file *os.File
	raw  interface {
		Read(func(fd uintptr) bool) error
		Write(func(fd uintptr) bool) error
	}
	closed  atomic.Bool
	sendMu  sync.Mutex
	sendBuf []byte
	oob     []byte
}

// Pair makes a connected pair: the parent's Conn, and the file to be handed to
// the child as ChildFD (the caller closes it after the child has started).
func Pair() (*Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("ipc: socketpair: %w", err)
	}
	child := os.NewFile(uintptr(fds[1]), "ipc-child")
	conn, err := FromFD(fds[0])
	if err != nil {
		child.Close()
		return nil, nil, err
	}
	return conn, child, nil
}

// FromFD takes over a descriptor of a SOCK_SEQPACKET socket. In a child:
// FromFD(ChildFD).
func FromFD(fd int) (*Conn, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ipc: descriptor %d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "ipc")
	rc, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("ipc: descriptor %d: %w", fd, err)
	}
	return &Conn{file: f, raw: rc, sendBuf: make([]byte, 0, 4096), oob: make([]byte, unix.CmsgSpace(MaxFDs*4))}, nil
}

// Close closes this end; the other end then receives io.EOF, and calls on this
// end return os.ErrClosed (wrapped).
func (c *Conn) Close() error {
	c.closed.Store(true)
	return c.file.Close()
}

// orClosed replaces what package os says when Close interrupts a call: an error
// that cannot be told from others.
func (c *Conn) orClosed(err error) error {
	if c.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// SetReadDeadline bounds the next Recv calls; the zero time means no bound.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.file.SetReadDeadline(t) }

// SetWriteDeadline bounds the next Send calls; the zero time means no bound.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.file.SetWriteDeadline(t) }

// Send sends one message with up to MaxFDs descriptors, which stay the
// caller's. It blocks while the socket's buffer is full.
func (c *Conn) Send(kind byte, payload []byte, fds ...int) error {
	if len(payload)+headerLen > MaxMessage || len(fds) > MaxFDs {
		return fmt.Errorf("ipc: message of %d bytes and %d descriptors is over the limit", len(payload), len(fds))
	}
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.sendBuf = append(append(c.sendBuf[:0], Version, kind), payload...)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var sendErr error
	err := c.raw.Write(func(fd uintptr) bool {
		sendErr = unix.Sendmsg(int(fd), c.sendBuf, rights, nil, unix.MSG_NOSIGNAL)
		return sendErr != unix.EAGAIN && sendErr != unix.EINTR
	})
	if err == nil {
		err = sendErr
	}
	if err != nil {
		return fmt.Errorf("ipc: send: %w", c.orClosed(err))
	}
	return nil
}

// Message is one received message. Payload stands in the buffer given to Recv.
// FDs belong to the receiver, who must close them (CloseFDs).
type Message struct {
	Kind    byte
	Payload []byte
	FDs     []int
}

// CloseFDs closes the descriptors that came along and were not taken out.
func (m *Message) CloseFDs() {
	for _, fd := range m.FDs {
		unix.Close(fd)
	}
	m.FDs = nil
}

// Recv receives one message into buf, which must hold MaxMessage bytes. It
// returns io.EOF when the other end is closed, os.ErrDeadlineExceeded (wrapped)
// at the read deadline, ErrProtocol (wrapped) for a malformed packet.
func (c *Conn) Recv(buf []byte) (Message, error) {
	if len(buf) < MaxMessage {
		return Message{}, fmt.Errorf("ipc: internal error: receive buffer of %d bytes", len(buf))
	}
	var n, oobn, flags int
	var recvErr error
	err := c.raw.Read(func(fd uintptr) bool {
		n, oobn, flags, _, recvErr = unix.Recvmsg(int(fd), buf[:MaxMessage], c.oob, unix.MSG_CMSG_CLOEXEC)
		return recvErr != unix.EAGAIN && recvErr != unix.EINTR
	})
	if err == nil {
		err = recvErr
	}
	if err != nil {
		if errors.Is(err, unix.ECONNRESET) {
			return Message{}, io.EOF
		}
		return Message{}, fmt.Errorf("ipc: receive: %w", c.orClosed(err))
	}
	if n == 0 && oobn == 0 {
		return Message{}, io.EOF
	}
	msg := Message{}
	if oobn > 0 {
		msg.FDs, err = parseRights(c.oob[:oobn])
		if err != nil {
			return Message{}, err
		}
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 || n < headerLen || len(msg.FDs) > MaxFDs {
		msg.CloseFDs()
		return Message{}, fmt.Errorf("%w: truncated or oversized packet (%d bytes)", ErrProtocol, n)
	}
	if buf[0] != Version {
		msg.CloseFDs()
		return Message{}, fmt.Errorf("%w: message version %d, this program speaks %d", ErrProtocol, buf[0], Version)
	}
	msg.Kind = buf[1]
	msg.Payload = buf[headerLen:n]
	return msg, nil
}

func parseRights(oob []byte) ([]int, error) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control message: %v", ErrProtocol, err)
	}
	var out []int
	for i := range cmsgs {
		fds, err := unix.ParseUnixRights(&cmsgs[i])
		if err != nil {
			continue
		}
		out = append(out, fds...)
	}
	return out, nil
}
