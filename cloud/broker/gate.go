package broker

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// gate is the listener that the server gets. It finishes the TLS handshake,
// with a deadline and in bounded number, before the server sees a connection:
// the server itself would wait for ever for a first packet, and knows no
// identities.
type gate struct {
	inner   net.Listener
	tls     *tls.Config
	fleet   string
	revoked func(serial string) bool
	limits  Limits
	log     *slog.Logger
	stats   *counters

	// out
	ready chan *peer

	mu    sync.Mutex
	peers map[*peer]bool
	done  chan struct{}
	once  sync.Once

	writers sync.WaitGroup
}

func newGate(inner net.Listener, c Config, stats *counters) *gate {
	return &gate{
		inner: inner, tls: c.TLS, fleet: c.Fleet, revoked: c.Revoked, limits: c.Limits, log: c.Log, stats: stats,
		ready: make(chan *peer), peers: map[*peer]bool{}, done: make(chan struct{}),
	}
}

// run accepts until the gate is closed, and returns when the last handshake and
// the last connection are over.
func (g *gate) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer g.writers.Wait()
	defer wg.Wait()
	slots := make(chan struct{}, g.limits.Handshakes)
	for {
		select {
		case slots <- struct{}{}:
		case <-g.done:
			return nil
		}
		c, err := g.inner.Accept()
		if err != nil {
			select {
			case <-g.done:
				return nil
			case <-time.After(50 * time.Millisecond): // out of descriptors: it passes
				g.log.Warn("accept failed", "error", err)
				<-slots
				continue
			}
		}
		wg.Go(func() {
			defer func() { <-slots }()
			g.admit(ctx, c)
		})
	}
}

func (g *gate) admit(ctx context.Context, c net.Conn) {
	p, err := g.greet(ctx, c)
	if err != nil {
		g.stats.refused.Add(1)
		g.log.Warn("connection refused", "remote", c.RemoteAddr().String(), "error", err)
		_ = c.Close() // refused anyway
		return
	}
	select {
	case g.ready <- p:
	case <-g.done:
		p.kill()
	}
}

func (g *gate) greet(ctx context.Context, c net.Conn) (*peer, error) {
	t := tls.Server(c, g.tls)
	if err := t.SetDeadline(time.Now().Add(g.limits.Handshake)); err != nil {
		return nil, err
	}
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	certs := t.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return nil, fmt.Errorf("%w: no client certificate", ErrDenied)
	}
	p := newPeer(t, g, Identity{Fleet: g.fleet, Name: certs[0].Subject.CommonName}, certs[0].SerialNumber.Text(16))
	if g.revoked != nil && g.revoked(p.serial) {
		return nil, fmt.Errorf("%w: certificate of %q is revoked", ErrDenied, p.id.Name)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.peers) >= g.limits.Clients {
		return nil, fmt.Errorf("%w: %d connections are open", ErrDenied, len(g.peers))
	}
	select {
	case <-g.done:
		return nil, net.ErrClosed
	default:
	}
	// The same deadline holds for the first packet; the server sets others.
	if err := t.SetReadDeadline(time.Now().Add(g.limits.Handshake)); err != nil {
		return nil, err
	}
	g.peers[p] = true
	g.writers.Go(p.write)
	return p, nil
}

func (g *gate) forget(p *peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.peers, p)
}

// end closes the connections that match and says how many.
func (g *gate) end(match func(*peer) bool) int {
	var gone []*peer
	g.mu.Lock()
	for p := range g.peers {
		if match(p) {
			gone = append(gone, p)
		}
	}
	g.mu.Unlock()
	for _, p := range gone {
		p.kill()
	}
	return len(gone)
}

// endRevoked closes the connections of certificates revoked since.
func (g *gate) endRevoked() {
	if g.revoked == nil {
		return
	}
	g.end(func(p *peer) bool {
		if !g.revoked(p.serial) {
			return false
		}
		g.stats.revoked.Add(1)
		g.log.Warn("session ended: certificate revoked", "client", p.id.Name, "serial", p.serial)
		return true
	})
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	select {
	case p := <-g.ready:
		return p, nil
	case <-g.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (g *gate) Close() error {
	var err error
	g.once.Do(func() {
		close(g.done)
		err = g.inner.Close()
		g.end(func(*peer) bool { return true })
	})
	return err
}

// Addr implements net.Listener.
func (g *gate) Addr() net.Addr { return g.inner.Addr() }
