package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/wire"
)

const (
	maxKeepalive = 1200 // seconds
	maxPacket    = wire.MaxMessage + 1024
	revokedEvery = 5 * time.Second // how soon a revocation by another process ends a session
)

// Limits bound what clients can cost. Zero values mean the defaults.
type Limits struct {
	Clients    int           // open connections; 4096
	Handshakes int           // unfinished TLS handshakes; 128
	Handshake  time.Duration // for the handshake, and again for the first packet; 10 s
	// PendingBytes is what a client may leave unread before its session is
	// ended; from three quarters on, chunks of blobs are dropped. 16 MiB, and
	// four times as much for the hub, which is sent the whole fleet's retained
	// messages at once.
	PendingBytes int
	Pending      int // messages on their way into that buffer; 2048
	Inflight     int // messages a client has not acknowledged; 8192
}

func (l Limits) filled() Limits {
	or := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	or(&l.Clients, 4096)
	or(&l.Handshakes, 128)
	or(&l.PendingBytes, 16<<20)
	or(&l.Pending, 2048)
	or(&l.Inflight, 8192)
	if l.Handshake <= 0 {
		l.Handshake = 10 * time.Second
	}
	return l
}

// Config is what the embedded broker needs.
type Config struct {
	Fleet   string
	Address string      // host:port to listen on; port 0 picks one
	TLS     *tls.Config // as identity.Authority.TLSConfig gives it
	// Revoked says whether a certificate (serial number in lower-case
	// hexadecimal) is revoked. Nil means that TLS alone decides.
	Revoked func(serial string) bool
	Limits  Limits
	Log     *slog.Logger
}

// Validate says what is missing.
func (c Config) Validate() error {
	switch {
	case !wire.ValidName(c.Fleet):
		return fmt.Errorf("broker: fleet %q is no fleet name", c.Fleet)
	case c.TLS == nil || c.TLS.ClientAuth != tls.RequireAndVerifyClientCert:
		return errors.New("broker: TLS must require and verify client certificates")
	case c.TLS.MinVersion < tls.VersionTLS13:
		return errors.New("broker: TLS 1.3 is the least")
	case c.Log == nil:
		return errors.New("broker: no logger")
	}
	return nil
}

// counters are what Stats shows.
type counters struct{ refused, denied, dropped, slow, revoked atomic.Int64 }

// Stats count since the start.
type Stats struct {
	Clients int   // sessions open now
	Refused int64 // connections and sessions refused
	Denied  int64 // publishes and subscriptions refused
	Dropped int64 // messages not queued because a client did not read or acknowledge
	Slow    int64 // sessions ended for that
	Revoked int64 // sessions ended because of a revocation
}

// Broker is the embedded broker. It is safe for concurrent use.
type Broker struct {
	cfg    Config
	gate   *gate
	server *mqtt.Server
	stats  *counters
	local  chan delivery
	done   chan struct{}
	nextID atomic.Int64
}

// New listens, but serves only in Run.
func New(c Config) (*Broker, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	c.Limits = c.Limits.filled()
	l, err := net.Listen("tcp", c.Address)
	if err != nil {
		return nil, fmt.Errorf("broker: listen on %s: %w", c.Address, err)
	}
	b := &Broker{cfg: c, stats: &counters{}, local: make(chan delivery, localQueue), done: make(chan struct{})}
	b.gate = newGate(l, c, b.stats)
	b.server = mqtt.New(&mqtt.Options{
		Capabilities:           capabilities(c.Limits),
		Logger:                 slog.New(&quiet{inner: c.Log.Handler()}),
		SysTopicResendInterval: 3600,
		InlineClient:           true,
	})
	h := &hook{log: c.Log, stats: b.stats, session: b.session}
	if err := b.server.AddHook(h, nil); err != nil {
		return nil, errors.Join(fmt.Errorf("broker: %w", err), l.Close())
	}
	return b, nil
}

func capabilities(l Limits) *mqtt.Capabilities {
	c := mqtt.NewDefaultServerCapabilities()
	c.MaximumClients = int64(l.Clients)
	c.MaximumClientWritesPending = int32(l.Pending)
	c.MaximumInflight = uint16(min(l.Inflight, 1<<16-1))
	c.MaximumPacketSize = maxPacket
	// Anything but 0 also deletes retained messages of that age, those of
	// MQTT 3.1.1 clients included: after a day without news the fleet would
	// lose its trust metadata.
	c.MaximumMessageExpiryInterval = 0
	c.MaximumSessionExpiryInterval = 0
	c.MinimumProtocolVersion = 4
	c.TopicAliasMaximum = 0
	c.SharedSubAvailable = 0
	c.MaximumQos = 1
	return c
}

// Addr is where the broker listens, host:port.
func (b *Broker) Addr() string { return b.gate.Addr().String() }

// Run serves until ctx is done. It may be called once.
func (b *Broker) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := b.server.AddListener(listeners.NewNet("tls", b.gate)); err != nil {
		return fmt.Errorf("broker: %w", errors.Join(err, b.gate.Close()))
	}
	if err := b.server.Serve(); err != nil {
		return fmt.Errorf("broker: %w", errors.Join(err, b.gate.Close()))
	}
	g.Go(func() error { return b.gate.run(ctx) })
	g.Go(func() error { return b.deliver(ctx) })
	g.Go(func() error {
		tick := time.NewTicker(revokedEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				b.gate.endRevoked()
			case <-ctx.Done():
				return nil
			}
		}
	})
	<-ctx.Done()
	close(b.done) // first: a session that waits for the hub could not end
	err := errors.Join(b.gate.Close(), b.server.Close())
	return errors.Join(err, g.Wait())
}

// Disconnect ends the sessions of a client and says whether there was one. Its
// will is published.
func (b *Broker) Disconnect(client string) bool {
	return b.gate.end(func(p *peer) bool { return p.id.Name == client }) > 0
}

// CheckRevoked ends the sessions of certificates that are revoked by now. Run
// does so every few seconds by itself.
func (b *Broker) CheckRevoked() { b.gate.endRevoked() }

// Stats returns the counters.
func (b *Broker) Stats() Stats {
	return Stats{
		Clients: int(atomic.LoadInt64(&b.server.Info.ClientsConnected)),
		Refused: b.stats.refused.Load(), Denied: b.stats.denied.Load(), Dropped: b.stats.dropped.Load() + atomic.LoadInt64(&b.server.Info.InflightDropped),
		Slow: b.stats.slow.Load(), Revoked: b.stats.revoked.Load(),
	}
}

func (b *Broker) session(id string) *mqtt.Client {
	cl, _ := b.server.Clients.Get(id)
	return cl
}
