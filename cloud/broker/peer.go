package broker

import (
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	writeDeadline = 30 * time.Second // for one write to a client that reads slowly
	flushDeadline = time.Second      // for what is left when a session ends
)

var errSlow = errors.New("broker: client does not read")

// peer is a connection whose client has proved who it is.
//
// Write never blocks. The server holds a client's lock while it writes to it,
// and asks for the same lock before it queues a message of QoS 1 for that
// client: one client that does not read would stop whoever publishes, and with
// it the fleet, until the keep-alive has run out. So what is written goes into
// a buffer, bounded in bytes, that a goroutine of its own empties.
type peer struct {
	*tls.Conn
	id     Identity
	serial string
	gate   *gate
	limit  int

	wake chan struct{} // cap 1
	dead chan struct{} // closed by kill
	once sync.Once

	mu     sync.Mutex
	buf    [][]byte
	size   int
	closed bool
}

func newPeer(c *tls.Conn, g *gate, id Identity, serial string) *peer {
	return &peer{Conn: c, id: id, serial: serial, gate: g, limit: g.limits.PendingBytes, wake: make(chan struct{}, 1), dead: make(chan struct{})}
}

// Write implements net.Conn.
func (p *peer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	if p.size+len(b) > p.limit {
		p.closed = true
		p.gate.stats.slow.Add(1)
		p.gate.log.Warn("session ended: client does not read", "client", p.id.Name, "bytes", p.size)
		p.kill()
		return 0, errSlow
	}
	p.buf = append(p.buf, append([]byte(nil), b...))
	p.size += len(b)
	notify(p.wake)
	return len(b), nil
}

// busy says whether so much waits that what may be dropped should be.
func (p *peer) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.size > p.limit/4*3
}

func (p *peer) next() (b []byte, closed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.buf) > 0 {
		b = p.buf[0]
		p.buf[0] = nil
		p.buf = p.buf[1:]
	}
	return b, p.closed
}

// write empties the buffer until the connection ends.
func (p *peer) write() {
	defer p.kill()
	for {
		b, closed := p.next()
		if b == nil {
			if closed {
				return
			}
			select {
			case <-p.wake:
			case <-p.dead:
				return
			}
			continue
		}
		wait := writeDeadline
		if closed {
			wait = flushDeadline
		}
		if p.SetWriteDeadline(time.Now().Add(wait)) != nil {
			return
		}
		if _, err := p.Conn.Write(b); err != nil {
			return
		}
		p.mu.Lock()
		p.size -= len(b)
		p.mu.Unlock()
	}
}

// SetDeadline implements net.Conn. The server renews it with every packet it
// reads; writing has a deadline of its own.
func (p *peer) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// Close implements net.Conn: what is in the buffer, such as the answer to a
// refused session, still goes out, within flushDeadline.
func (p *peer) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	notify(p.wake)
	return p.SetReadDeadline(time.Now()) // wakes the reader
}

// kill ends the connection at once.
func (p *peer) kill() {
	p.once.Do(func() {
		close(p.dead)
		_ = p.NetConn().Close() // it is over either way
		p.gate.forget(p)
	})
}
