package broker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/droverhq/drover/agent/wire"
)

// ErrNotConnected is returned while there is no session with the broker.
var ErrNotConnected = errors.New("broker: not connected")

// ErrRefused is returned when the broker refuses a subscription.
var ErrRefused = errors.New("broker: subscription refused")

const (
	remoteBytes    = 64 << 20 // of messages that wait for a handler
	remoteRetry    = 500 * time.Millisecond
	maxRemoteRetry = 30 * time.Second
	remoteTimeout  = 10 * time.Second
)

// RemoteConfig is what the hub needs to use an external broker.
type RemoteConfig struct {
	Address     string // host:port
	Fleet       string
	Certificate tls.Certificate // the hub's
	// Today gives the certificate anew for each connection, because it is
	// renewed. Nil means Certificate.
	Today func() tls.Certificate
	CA    *x509.CertPool
	// OnUp is called whenever a session has begun and subscriptions stand. A
	// broker may have forgotten retained messages: publish them again. It may
	// publish and wait. May be nil.
	OnUp func(ctx context.Context)
	Log  *slog.Logger
}

// Remote is the hub's session with an external broker. It has the methods of
// Broker that a hub uses. It is safe for concurrent use.
//
// The session outlives connections: the broker keeps what devices publish with
// QoS 1 while the hub is away, within the broker's own bounds. A message is
// acknowledged after its handler has returned, so that a hub that is killed
// gets it again, and that the broker's window (20 with the generated mosquitto
// configuration) bounds what waits here.
type Remote struct {
	cfg  RemoteConfig
	tls  *tls.Config
	wake chan struct{} // cap 1

	overflows atomic.Int64

	mu    sync.Mutex
	live  *remoteSession // nil while not connected
	subs  []remoteSub
	queue []mqtt.Message
	bytes int
}

// remoteSession is one connection. The MQTT client makes no second one: when
// it reconnects by itself it sends what is in its store while the same packets
// may just be being written, which is a data race.
type remoteSession struct {
	client mqtt.Client
	done   chan struct{} // closed when the connection is lost
}

type remoteSub struct {
	filter string
	qos    byte
	handle func(topic string, payload []byte)
}

// NewRemote makes a Remote; Run connects it.
func NewRemote(c RemoteConfig) (*Remote, error) {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return nil, fmt.Errorf("broker: address %q: %w", c.Address, err)
	}
	if !wire.ValidName(c.Fleet) || c.CA == nil || c.Log == nil || len(c.Certificate.Certificate) == 0 {
		return nil, errors.New("broker: remote needs fleet, certificate, CA and logger")
	}
	if c.Today == nil {
		c.Today = func() tls.Certificate { return c.Certificate }
	}
	return &Remote{cfg: c, wake: make(chan struct{}, 1), tls: &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: c.CA, ServerName: host,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert := c.Today()
			return &cert, nil
		},
	}}, nil
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Connected says whether there is a session now.
func (r *Remote) Connected() bool { return r.current() != nil }

func (r *Remote) current() *remoteSession {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.live
}

func (r *Remote) setCurrent(s *remoteSession) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live = s
}

// Overflows counts messages that were not taken, nor acknowledged, because too
// many waited: the broker sends them again with the next connection.
func (r *Remote) Overflows() int64 { return r.overflows.Load() }

// Run keeps the session until ctx is done, and then returns nil. It may be
// called once.
func (r *Remote) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { r.deliver(ctx) })
	for pause := remoteRetry; ; pause = min(2*pause, maxRemoteRetry) {
		began := time.Now()
		err := r.session(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > time.Minute {
			pause = remoteRetry
		}
		r.cfg.Log.Warn("no session with the broker", "broker", r.cfg.Address, "error", err, "retry_in", pause.String())
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
	}
}

// session connects, keeps the session, and returns why it ended.
func (r *Remote) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	why := make(chan error, 1)
	s := &remoteSession{done: make(chan struct{})}
	s.client = mqtt.NewClient(r.options(ctx, func(err error) {
		why <- err
		close(s.done)
	}))
	t := s.client.Connect()
	<-t.Done() // bounded by remoteTimeout, and by ctx, which closes the connection
	if err := t.Error(); err != nil {
		return err
	}
	defer s.client.Disconnect(250)
	r.setCurrent(s)
	defer r.setCurrent(nil)
	if err := r.begin(ctx, s); err != nil {
		return err
	}
	select {
	case err := <-why:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// options are for one connection; lost is called at most once.
func (r *Remote) options(ctx context.Context, lost func(error)) *mqtt.ClientOptions {
	return mqtt.NewClientOptions().AddBroker("tls://" + r.cfg.Address).
		SetClientID(HubName).SetProtocolVersion(4).SetCleanSession(false).
		SetAutoReconnect(false).SetConnectRetry(false).
		SetConnectTimeout(remoteTimeout).SetWriteTimeout(remoteTimeout).SetKeepAlive(30 * time.Second).
		SetOrderMatters(true).SetAutoAckDisabled(true).
		SetDefaultPublishHandler(r.receive).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { lost(err) }).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: remoteTimeout}, Config: r.tls}
			dial, cancel := context.WithTimeout(ctx, remoteTimeout)
			defer cancel()
			c, err := d.DialContext(dial, "tcp", r.cfg.Address)
			if err == nil {
				context.AfterFunc(ctx, func() { _ = c.Close() }) // it is over either way
			}
			return c, err
		})
}

func (r *Remote) begin(ctx context.Context, s *remoteSession) error {
	r.mu.Lock()
	subs := slices.Clone(r.subs)
	r.mu.Unlock()
	for _, sub := range subs {
		if err := s.subscribe(ctx, sub); err != nil {
			return err
		}
	}
	r.cfg.Log.Info("session with the broker", "broker", r.cfg.Address)
	if r.cfg.OnUp != nil {
		r.cfg.OnUp(ctx)
	}
	return nil
}

// Publish publishes and waits until the broker has acknowledged.
func (r *Remote) Publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error {
	if err := Authorize(Identity{Fleet: r.cfg.Fleet, Name: HubName}, Write, topic); err != nil {
		return err
	}
	if len(payload) > wire.MaxMessage {
		return fmt.Errorf("broker: publish %s: %w: %d bytes, allowed %d", topic, wire.ErrTooLarge, len(payload), wire.MaxMessage)
	}
	s := r.current()
	if s == nil {
		return ErrNotConnected
	}
	if err := s.wait(ctx, s.client.Publish(topic, min(qos, 1), retained, payload)); err != nil {
		return fmt.Errorf("broker: publish %s: %w", topic, err)
	}
	return nil
}

// Subscribe calls handle for every message that matches filter, in this
// connection and all later ones, on one goroutine of Run. handle may publish
// and wait.
func (r *Remote) Subscribe(ctx context.Context, filter string, qos byte, handle func(topic string, payload []byte)) error {
	if err := Authorize(Identity{Fleet: r.cfg.Fleet, Name: HubName}, Read, filter); err != nil {
		return err
	}
	sub := remoteSub{filter: filter, qos: min(qos, 1), handle: handle}
	r.mu.Lock()
	r.subs = append(r.subs, sub)
	s := r.live
	r.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.subscribe(ctx, sub)
}

func (s *remoteSession) subscribe(ctx context.Context, sub remoteSub) error {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	t := s.client.Subscribe(sub.filter, sub.qos, nil)
	if err := s.wait(ctx, t); err != nil {
		return fmt.Errorf("broker: subscribe %s: %w", sub.filter, err)
	}
	if st, ok := t.(*mqtt.SubscribeToken); ok && st.Result()[sub.filter] > 2 {
		return fmt.Errorf("%w: %s", ErrRefused, sub.filter)
	}
	return nil
}

func (s *remoteSession) wait(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-s.done:
		return ErrNotConnected
	case <-ctx.Done():
		return ctx.Err()
	}
}

// receive is called by the MQTT client and must not block.
func (r *Remote) receive(_ mqtt.Client, m mqtt.Message) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes+len(m.Payload()) > remoteBytes {
		r.overflows.Add(1)
		return
	}
	r.queue = append(r.queue, m)
	r.bytes += len(m.Payload())
	notify(r.wake)
}

func (r *Remote) take() (m mqtt.Message, to []remoteSub) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return nil, nil
	}
	m = r.queue[0]
	r.queue[0] = nil
	r.queue = r.queue[1:]
	r.bytes -= len(m.Payload())
	for _, s := range r.subs {
		if matches(s.filter, m.Topic()) {
			to = append(to, s)
		}
	}
	return m, to
}

func (r *Remote) deliver(ctx context.Context) {
	for ctx.Err() == nil {
		m, to := r.take()
		if m == nil {
			select {
			case <-r.wake:
			case <-ctx.Done():
			}
			continue
		}
		for _, s := range to {
			s.handle(m.Topic(), m.Payload())
		}
		m.Ack()
	}
}
