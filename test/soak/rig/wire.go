package rig

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Wire forwards TCP connections, until it is cut: then the connections stay
// open, and nothing passes any more. It is safe for concurrent use.
type Wire struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	down  chan struct{} // closed while nothing is cut
	conns map[net.Conn]bool
	done  bool
	all   sync.WaitGroup
}

func newWire(t testing.TB, to string) *Wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{l: l, to: to, down: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(w.down)
	w.all.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

// Addr is where devices connect.
func (w *Wire) Addr() string { return w.l.Addr().String() }

// Cut lets nothing pass until Mend. What was under way is lost.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.down:
		w.down = make(chan struct{})
	default:
	}
}

// Mend ends the partition: old connections end, new ones pass.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.down:
		return
	default:
	}
	for c := range w.conns {
		c.Close()
	}
	close(w.down)
}

// Drop ends all connections.
func (w *Wire) Drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		c.Close()
	}
}

func (w *Wire) close() {
	w.mu.Lock()
	w.done = true
	w.mu.Unlock()
	w.l.Close()
	w.Mend()
	w.Drop()
	w.all.Wait()
}

// keep notes a connection, so that it can be ended; false at the end.
func (w *Wire) keep(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		c.Close()
		return false
	}
	w.conns[c] = true
	return true
}

func (w *Wire) accept() {
	for {
		c, err := w.l.Accept()
		if err != nil {
			return
		}
		if !w.keep(c) {
			return
		}
		w.all.Go(func() { w.forward(c) })
	}
}

func (w *Wire) forward(c net.Conn) {
	defer w.forget(c)
	w.pass()
	s, err := net.Dial("tcp", w.to)
	if err != nil || !w.keep(s) {
		return
	}
	defer w.forget(s)
	var both sync.WaitGroup
	both.Go(func() { w.copy(s, c) })
	both.Go(func() { w.copy(c, s) })
	both.Wait()
}

func (w *Wire) forget(c net.Conn) {
	c.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, c)
}

// pass waits while the wire is cut.
func (w *Wire) pass() {
	w.mu.Lock()
	down := w.down
	w.mu.Unlock()
	<-down
}

func (w *Wire) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		w.pass()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err == io.EOF || err != nil {
			return
		}
	}
}
