package link_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/droverhq/drover/cloud/identity"
)

// proxy passes bytes on to a broker until it is told not to.
type proxy struct {
	l  net.Listener
	wg sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	off   bool
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	return proxyOn(t, "127.0.0.1:0", to)
}

func proxyOn(t *testing.T, listen, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{l: l}
	p.wg.Go(func() {
		for {
			a, err := l.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil || !p.keep(a, b) {
				_ = a.Close()
				continue
			}
			for _, d := range [][2]net.Conn{{a, b}, {b, a}} {
				p.wg.Go(func() {
					_, _ = io.Copy(d[0], d[1])
					_ = d[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.refuse()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) addr() string { return p.l.Addr().String() }

func (p *proxy) keep(c ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.off {
		p.conns = append(p.conns, c...)
		return true
	}
	for _, x := range c {
		_ = x.Close()
	}
	return false
}

// refuse breaks all connections and lets no more through.
func (p *proxy) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = true
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// aliasOf is an address of the same broker that is not in its certificate.
func aliasOf(t *testing.T, addr string) string {
	t.Helper()
	return strings.Replace(proxyOn(t, "127.0.0.2:0", addr).addr(), "127.0.0.2", "127.0.0.1", 1)
}

func serial(t *testing.T, c tls.Certificate) string {
	t.Helper()
	x, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return identity.Serial(x)
}
