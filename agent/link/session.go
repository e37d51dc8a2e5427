package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/wire"
)

// session is one connection. calls are carried out by one goroutine, because
// the MQTT client may block a caller for writeTimeout without looking at its
// context.
type session struct {
	client mqtt.Client
	calls  chan call
	done   chan struct{} // closed when the session is over
}

type call struct {
	do    func(mqtt.Client) mqtt.Token
	reply chan mqtt.Token // cap 1
}

func (s *session) pump() error {
	for {
		select {
		case c := <-s.calls:
			c.reply <- c.do(s.client)
		case <-s.done:
			return nil
		}
	}
}

// ask has the pump do something and waits until the broker has acknowledged it.
func (s *session) ask(ctx context.Context, do func(mqtt.Client) mqtt.Token) (mqtt.Token, error) {
	c := call{do: do, reply: make(chan mqtt.Token, 1)}
	select {
	case s.calls <- c:
	case <-s.done:
		return nil, ErrNotConnected
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var t mqtt.Token
	select {
	case t = <-c.reply:
	case <-s.done:
		return nil, ErrNotConnected
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case <-t.Done():
		if err := t.Error(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotConnected, err)
		}
		select {
		case <-s.done: // tokens are also completed when the connection is lost
			return nil, ErrNotConnected
		default:
			return t, nil
		}
	case <-s.done:
		return nil, ErrNotConnected
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// session connects, keeps the session, and returns why it ended.
func (l *Link) session(ctx context.Context, g *errgroup.Group) error {
	lost := make(chan error, 1)
	select {
	case <-l.renewed: // this session has it
	default:
	}
	client, err := l.connect(ctx, lost)
	if err != nil {
		return err
	}
	s := &session{client: client, calls: make(chan call), done: make(chan struct{})}
	g.Go(s.pump)
	if err = l.begin(ctx, s); err == nil {
		l.sessions.Add(1)
		l.setCurrent(s)
		l.judged(false)
		l.cfg.Log.Info("session with the broker", "broker", l.cfg.Broker)
		l.report(State{Connected: true})
		err = l.attend(ctx, s, lost)
		l.setCurrent(nil)
	}
	if ctx.Err() != nil {
		// The last will would say the same, but not before the broker misses us.
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		_ = l.sayOnline(bye, s, false) // the will follows if this failed
		cancel()
	}
	if errors.Is(err, ErrNotConnected) { // the reason is on its way
		select {
		case err = <-lost:
		case <-time.After(farewell):
		}
	}
	close(s.done)
	client.Disconnect(uint(farewell.Milliseconds()))
	return classify(err)
}

// connect makes the connection. A cancelled context ends the attempt, but not
// the connection once it stands: there is a farewell to say.
func (l *Link) connect(ctx context.Context, lost chan<- error) (mqtt.Client, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o := mqtt.NewClientOptions().AddBroker("tls://"+l.cfg.Broker).
		SetClientID(l.cfg.Device).SetProtocolVersion(4).SetCleanSession(true).
		SetAutoReconnect(false).SetConnectRetry(false).SetOrderMatters(true).
		SetConnectTimeout(dialTimeout).SetWriteTimeout(writeTimeout).
		SetKeepAlive(l.cfg.KeepAlive).SetPingTimeout(min(l.cfg.KeepAlive, 15*time.Second)).
		SetBinaryWill(l.topics.Device(l.cfg.Device, wire.LeafOnline), l.online(false), 1, true).
		SetDefaultPublishHandler(l.receive).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) {
			select {
			case lost <- err:
			default:
			}
		}).
		SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
			c, err := l.dial(ctx)
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, func() { c.breakUnlessUp() })
			return c, nil
		})
	client := mqtt.NewClient(o)
	t := client.Connect()
	<-t.Done() // bounded by dialTimeout, and by ctx through dial and breakUnlessUp
	if err := t.Error(); err != nil {
		return nil, classify(err)
	}
	return client, nil
}

// begin subscribes and says that the device is online.
func (l *Link) begin(ctx context.Context, s *session) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	for _, sub := range l.subscriptions() {
		sub.missed.Store(false)
		err := subscribe(ctx, s, sub)
		if errors.Is(err, ErrRefused) {
			l.cfg.Log.Error("subscription refused", "filter", sub.filter)
			continue
		}
		if err != nil {
			return fmt.Errorf("link: subscribe %s: %w", sub.filter, err)
		}
	}
	if err := l.sayOnline(ctx, s, true); err != nil {
		return fmt.Errorf("link: publish online: %w", err)
	}
	return nil
}

// attend waits for the end of the session, and renews subscriptions that
// missed messages.
func (l *Link) attend(ctx context.Context, s *session, lost chan error) error {
	for {
		select {
		case err := <-lost:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-l.renewed:
			return errRenewed
		case <-l.again:
			for _, sub := range l.subscriptions() {
				if !sub.missed.Swap(false) {
					continue
				}
				again, cancel := context.WithTimeout(ctx, ackTimeout)
				err := subscribe(again, s, sub)
				cancel()
				if errors.Is(err, ErrRefused) {
					l.cfg.Log.Error("subscription refused", "filter", sub.filter)
				} else if err != nil {
					return fmt.Errorf("link: subscribe %s again: %w", sub.filter, err)
				}
			}
		}
	}
}

func (l *Link) online(yes bool) []byte {
	return wire.Encode(wire.Online{V: wire.Version, Online: yes, Session: l.cfg.Boot, Agent: l.cfg.Agent})
}

func (l *Link) sayOnline(ctx context.Context, s *session, yes bool) error {
	_, err := s.ask(ctx, func(c mqtt.Client) mqtt.Token {
		return c.Publish(l.topics.Device(l.cfg.Device, wire.LeafOnline), 1, true, l.online(yes))
	})
	return err
}

// classify gives an error of the connection its kind.
func classify(err error) error {
	var op *net.OpError
	switch {
	case err == nil, errors.Is(err, ErrBrokerIdentity), errors.Is(err, ErrProtocol), errors.Is(err, errRenewed):
		return err
	case errors.As(err, &op) && op.Op == "remote error" && (strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "access denied")):
		// crypto/tls has no exported type for an alert of the other side; the
		// texts of all that mean the certificate have one of these words.
		return fmt.Errorf("%w: %w", ErrCertificateRefused, err)
	case errors.Is(err, packets.ErrorRefusedNotAuthorised), errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedIDRejected):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return fmt.Errorf("link: %w", err)
}

// Publish publishes and waits until the broker has acknowledged (QoS 1) or the
// message is written (QoS 0). ErrNotConnected, wire.ErrTooLarge, or what ctx
// says; the message may have arrived all the same.
func (l *Link) Publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error {
	if len(payload) > wire.MaxMessage {
		return fmt.Errorf("link: publish %s: %w: %d bytes, allowed %d", topic, wire.ErrTooLarge, len(payload), wire.MaxMessage)
	}
	s := l.current()
	if s == nil {
		return ErrNotConnected
	}
	_, err := s.ask(ctx, func(c mqtt.Client) mqtt.Token { return c.Publish(topic, min(qos, 1), retained, payload) })
	if err != nil {
		return fmt.Errorf("link: publish %s: %w", topic, err)
	}
	return nil
}

// TryPublish publishes with QoS 0 if that is possible at once, and says whether
// it was. It never blocks.
func (l *Link) TryPublish(topic string, payload []byte, retained bool) bool {
	s := l.current()
	if s == nil || len(payload) > wire.MaxMessage {
		return false
	}
	c := call{reply: make(chan mqtt.Token, 1), do: func(c mqtt.Client) mqtt.Token { return c.Publish(topic, 0, retained, payload) }}
	select {
	case s.calls <- c:
		return true
	default:
		return false
	}
}
