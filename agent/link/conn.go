package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// clientTLS is the device's side of TLS.
func clientTLS(c Config) (*tls.Config, error) {
	roots := x509.NewCertPool()
	for _, der := range c.CA {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("link: root certificate: %w", err)
		}
		roots.AddCert(ca)
	}
	host, _, err := net.SplitHostPort(c.Broker)
	if err != nil {
		return nil, fmt.Errorf("link: broker %q: %w", c.Broker, err)
	}
	cert := c.Certificate
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// Always ours: the default sends none when it dislikes the broker's
		// list of authorities, and the refusal is then hard to understand.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil },
		// Replaced by VerifyConnection, which checks all but the dates.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verifyBroker(s.PeerCertificates, roots, host) },
	}, nil
}

// verifyBroker checks chain, purpose and name of the broker's certificate, at a
// moment within its own validity: the device's clock may say 1970.
func verifyBroker(certs []*x509.Certificate, roots *x509.CertPool, host string) error {
	if len(certs) == 0 {
		return fmt.Errorf("%w: no certificate", ErrBrokerIdentity)
	}
	inter := x509.NewCertPool()
	at := certs[0].NotBefore
	for _, c := range certs[1:] {
		inter.AddCert(c)
		if c.NotBefore.After(at) {
			at = c.NotBefore
		}
	}
	_, err := certs[0].Verify(x509.VerifyOptions{
		DNSName: host, Roots: roots, Intermediates: inter, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBrokerIdentity, err)
	}
	return nil
}

func (l *Link) dial(ctx context.Context) (*guard, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := &net.Dialer{KeepAlive: 15 * time.Second}
	raw, err := d.DialContext(ctx, "tcp", l.cfg.Broker)
	if err != nil {
		return nil, err
	}
	t := tls.Client(raw, l.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	return &guard{Conn: t}, nil
}

// maxPacket is the longest packet after its fixed header: topic and payload.
const maxPacket = wire.MaxMessage + 1024

// guard checks the packets of the broker as they are read.
type guard struct {
	net.Conn

	// of the reader
	check checker

	mu sync.Mutex
	up bool
}

// Read implements net.Conn.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if bad := g.check.see(p[:n]); bad != nil {
		_ = g.Conn.Close() // the violation is the error to tell
		return 0, bad
	}
	if n > 0 {
		g.mu.Lock()
		g.up = true
		g.mu.Unlock()
	}
	return n, err
}

// Write implements net.Conn. When the broker refuses the certificate, TLS 1.3
// has it say so after the handshake, and the first write may fail before that
// was read.
func (g *guard) Write(p []byte) (int, error) {
	n, err := g.Conn.Write(p)
	if err == nil {
		return n, nil
	}
	g.mu.Lock()
	up := g.up
	g.mu.Unlock()
	if !up && g.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		if _, why := g.Conn.Read(make([]byte, 1)); why != nil {
			err = errors.Join(why, err)
		}
	}
	return n, err
}

// breakUnlessUp ends a connection that the broker has not answered on.
func (g *guard) breakUnlessUp() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.up {
		_ = g.Conn.Close() // nobody waits for it any more
	}
}

// checker follows the framing of the broker's packets. The zero value expects
// the beginning of a packet.
type checker struct {
	head   byte // first byte of the packet
	length int  // remaining length as far as read
	shift  uint
	step   int // 0: head is next, 1: length, 2: body
	body   int // bytes of the body still to come
}

// see checks the next bytes, and says what is wrong with them. ErrProtocol.
func (c *checker) see(p []byte) error {
	for len(p) > 0 {
		switch c.step {
		case 0:
			c.head, c.length, c.shift, c.step = p[0], 0, 0, 1
			p = p[1:]
		case 1:
			c.length |= int(p[0]&0x7f) << c.shift
			c.shift += 7
			more := p[0]&0x80 != 0
			p = p[1:]
			if more && c.shift < 28 {
				continue
			}
			if more {
				return fmt.Errorf("%w: length of over four bytes", ErrProtocol)
			}
			if err := c.allowed(); err != nil {
				return err
			}
			c.body, c.step = c.length, 2
			if c.body == 0 {
				c.step = 0
			}
		case 2:
			n := min(c.body, len(p))
			c.body -= n
			p = p[n:]
			if c.body == 0 {
				c.step = 0
			}
		}
	}
	return nil
}

// allowed judges a packet by its fixed header.
func (c *checker) allowed() error {
	ok := false
	switch kind := c.head >> 4; kind {
	case 3: // PUBLISH, QoS 0 or 1, as we subscribe
		if c.length > maxPacket {
			return fmt.Errorf("%w: packet of %d bytes, allowed %d", ErrProtocol, c.length, maxPacket)
		}
		ok = c.head&0x04 == 0 && c.length >= 2
	case 2, 4, 11: // CONNACK, PUBACK, UNSUBACK
		ok = c.length == 2
	case 9: // SUBACK for one filter
		ok = c.length == 3
	case 13, 14: // PINGRESP; DISCONNECT, which some brokers send in farewell
		ok = c.length == 0
	}
	if !ok {
		return fmt.Errorf("%w: packet of type %d, flags %#x, length %d", ErrProtocol, c.head>>4, c.head&15, c.length)
	}
	return nil
}
