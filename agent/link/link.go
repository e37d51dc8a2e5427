package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/wire"
)

// The kinds of failure.
var (
	// ErrNotConnected: there is no session now, or it ended before the
	// message was acknowledged.
	ErrNotConnected = errors.New("link: not connected")
	// ErrCertificateRefused: the broker does not take the device's
	// certificate: revoked, expired, or of another fleet.
	ErrCertificateRefused = errors.New("link: certificate refused by broker")
	// ErrRefused: the broker knows the certificate but not the session, or
	// refuses a subscription.
	ErrRefused = errors.New("link: refused by broker")
	// ErrBrokerIdentity: what answers is not the fleet's broker.
	ErrBrokerIdentity = errors.New("link: broker failed to prove its identity")
	// ErrProtocol: the broker sent what it may not send.
	ErrProtocol = errors.New("link: protocol violation by broker")
)

// errRenewed ends a session that is to begin again with another certificate.
var errRenewed = errors.New("link: certificate renewed")

// State is where the session stands.
type State struct {
	Connected bool
	Err       error // why not; nil before the first attempt and after an orderly end
}

// Config is what a Link needs.
type Config struct {
	Broker      string // host:port
	Fleet       string
	Device      string
	Certificate tls.Certificate // its PrivateKey may be any crypto.Signer
	CA          [][]byte        // DER: roots that the broker's certificate must lead to
	Boot        string          // boot id of this daemon: the session's name
	Agent       string          // version of droverd
	Log         *slog.Logger
	// OnState is told every change, on the goroutine of Run that also keeps
	// the session: it must not wait for the Link. May be nil.
	OnState func(State)
	// MinBackoff and MaxBackoff bound the pause between attempts; zero means
	// 1 s and 2 min. The pause doubles, and lies between its half and itself.
	MinBackoff, MaxBackoff time.Duration
	// KeepAlive is how long a silent connection is trusted; zero means 30 s.
	KeepAlive time.Duration
}

// Validate says what is missing.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Broker); err != nil {
		return fmt.Errorf("link: broker %q: %w", c.Broker, err)
	}
	switch {
	case !wire.ValidName(c.Fleet) || !wire.ValidName(c.Device):
		return fmt.Errorf("link: fleet %q, device %q: not valid names", c.Fleet, c.Device)
	case len(c.Certificate.Certificate) == 0 || c.Certificate.PrivateKey == nil:
		return errors.New("link: no device certificate")
	case len(c.CA) == 0:
		return errors.New("link: no root certificate")
	case c.Boot == "" || c.Log == nil:
		return errors.New("link: no boot id or no logger")
	}
	return nil
}

const (
	defaultMinBackoff = time.Second
	defaultMaxBackoff = 2 * time.Minute
	defaultKeepAlive  = 30 * time.Second
	steady            = time.Minute // a session this long clears the backoff
	dialTimeout       = 15 * time.Second
	ackTimeout        = 15 * time.Second
	writeTimeout      = 5 * time.Second
	farewell          = 750 * time.Millisecond

	reliableItems, reliableBytes = 256, 8 << 20
	lossyItems, lossyBytes       = 192, 12 << 20 // a window of wire.Get and half
)

// Stats count since the start.
type Stats struct {
	Sessions  int64 // sessions that were established
	Dropped   int64 // messages of QoS 0 subscriptions that did not fit the queue
	Overflows int64 // messages of QoS 1 subscriptions that did not, and were asked for again
	Oversize  int64 // messages over wire.MaxMessage
}

// Link is one MQTT session and its renewal. It is safe for concurrent use.
type Link struct {
	cfg    Config
	tls    *tls.Config
	topics wire.Topics

	reliable *queue
	lossy    *queue
	again    chan struct{} // cap 1: some subscription missed a message
	renewed  chan struct{} // cap 1: there is another certificate

	sessions, dropped, overflows, oversize atomic.Int64

	mu   sync.Mutex
	subs map[string]*subscription
	live *session // nil while not connected
	// cert is shown to the broker. former is the one before it, until the
	// broker has taken cert; the two change places when it refuses cert.
	cert   tls.Certificate
	former *tls.Certificate
}

// New makes a Link; Run connects it.
func New(c Config) (*Link, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if c.MinBackoff <= 0 {
		c.MinBackoff = defaultMinBackoff
	}
	if c.MaxBackoff <= 0 {
		c.MaxBackoff = defaultMaxBackoff
	}
	if c.KeepAlive <= 0 {
		c.KeepAlive = defaultKeepAlive
	}
	t, err := clientTLS(c)
	if err != nil {
		return nil, err
	}
	l := &Link{
		cfg: c, tls: t, cert: c.Certificate, renewed: make(chan struct{}, 1), topics: wire.Topics{Fleet: c.Fleet},
		reliable: newQueue(reliableItems, reliableBytes), lossy: newQueue(lossyItems, lossyBytes),
		again: make(chan struct{}, 1), subs: map[string]*subscription{},
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		cert := l.Certificate()
		return &cert, nil
	}
	return l, nil
}

// Certificate is what the device shows now; connections to the hub's other
// services should show the same.
func (l *Link) Certificate() tls.Certificate {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cert
}

// SetCertificate replaces the device's certificate: the session ends and begins
// again with it, at once. Should the broker refuse it, the former one is tried
// in turn.
func (l *Link) SetCertificate(cert tls.Certificate) {
	l.mu.Lock()
	former := l.cert
	l.cert, l.former = cert, &former
	l.mu.Unlock()
	select {
	case l.renewed <- struct{}{}:
	default:
	}
}

// judged notes what the broker thinks of the certificate.
func (l *Link) judged(refused bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.former == nil:
	case refused:
		l.cert, *l.former = *l.former, l.cert
	default:
		l.former = nil
	}
}

// Connected says whether there is a session now.
func (l *Link) Connected() bool { return l.current() != nil }

// Stats returns the counters.
func (l *Link) Stats() Stats {
	return Stats{Sessions: l.sessions.Load(), Dropped: l.dropped.Load(), Overflows: l.overflows.Load(), Oversize: l.oversize.Load()}
}

func (l *Link) current() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live
}

func (l *Link) setCurrent(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.live = s
}

// Run keeps a session until ctx is done, and then returns nil: no failure of
// the network or the broker ends it. It may be called once.
func (l *Link) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.reliable.run(ctx, l.asked) })
	g.Go(func() error { return l.lossy.run(ctx, func() {}) })
	g.Go(func() error {
		l.keep(ctx, g)
		return nil
	})
	return g.Wait()
}

func (l *Link) keep(ctx context.Context, g *errgroup.Group) {
	pause := l.cfg.MinBackoff
	for {
		began := time.Now()
		err := l.session(ctx, g)
		if ctx.Err() != nil {
			l.report(State{})
			return
		}
		if errors.Is(err, errRenewed) {
			l.cfg.Log.Info("session begins again with the renewed certificate", "broker", l.cfg.Broker)
			l.report(State{Err: err})
			continue
		}
		if errors.Is(err, ErrCertificateRefused) {
			l.judged(true)
		}
		if time.Since(began) > steady {
			pause = l.cfg.MinBackoff
		}
		l.report(State{Err: err})
		wait := pause/2 + rand.N(pause/2+1)
		l.cfg.Log.Warn("no session with the broker", "broker", l.cfg.Broker, "error", err, "retry_in", wait.Round(time.Millisecond).String())
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			l.report(State{})
			return
		}
		pause = min(pause*2, l.cfg.MaxBackoff)
	}
}

func (l *Link) report(s State) {
	if l.cfg.OnState != nil {
		l.cfg.OnState(s)
	}
}
