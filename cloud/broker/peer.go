package broker

import (
	"crypto/tls"
	"encoding/binary"
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
	limit := g.limits.PendingBytes
	if id.Hub() {
		limit *= 4
	}
	return &peer{Conn: c, id: id, serial: serial, gate: g, limit: limit, wake: make(chan struct{}, 1), dead: make(chan struct{})}
}

// Write implements net.Conn. b is one packet or several, all whole. From three
// quarters of the limit on, chunks of blobs are left out.
func (p *peer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	all := len(b)
	if p.size+len(b) > p.limit/4*3 {
		var n int
		b, n = withoutChunks(b)
		p.gate.stats.dropped.Add(int64(n))
	}
	if p.size+len(b) > p.limit {
		p.closed = true
		p.gate.stats.slow.Add(1)
		p.gate.log.Warn("session ended: client does not read", "client", p.id.Name, "bytes", p.size)
		p.kill()
		return 0, errSlow
	}
	if len(b) == 0 {
		return all, nil
	}
	p.buf = append(p.buf, append([]byte(nil), b...))
	p.size += len(b)
	notify(p.wake)
	return all, nil
}

// withoutChunks leaves out the packets that carry a chunk of a blob with QoS 0,
// and counts them.
func withoutChunks(b []byte) (rest []byte, dropped int) {
	for len(b) > 0 {
		length, n := binary.Uvarint(b[1:]) // MQTT's lengths are of this form
		end := 1 + n + int(length)
		if n <= 0 || end > len(b) {
			return append(rest, b...), dropped // not of this server's making
		}
		body := b[1+n : end]
		chunk := false
		if b[0]&0xf6 == 0x30 && len(body) >= 2 { // PUBLISH, QoS 0
			if t := int(binary.BigEndian.Uint16(body)); 2+t <= len(body) {
				chunk = isChunk(string(body[2 : 2+t]))
			}
		}
		if chunk {
			dropped++
		} else {
			rest = append(rest, b[:end]...)
		}
		b = b[end:]
	}
	return rest, dropped
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
