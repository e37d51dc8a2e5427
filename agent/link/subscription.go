package link

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/droverhq/drover/agent/wire"
)

// Handler takes a message. It owns the payload. It may publish and wait; while
// it does, the other messages of its queue wait too.
type Handler func(topic string, payload []byte)

type subscription struct {
	filter string
	qos    byte
	handle Handler
	gone   atomic.Bool
	missed atomic.Bool
}

// Subscribe calls handle for every message that matches filter, in this session
// and all later ones. QoS 0 messages may be dropped, QoS 1 ones are not lost
// silently (see the package comment). Without a session it returns at once; with
// one it waits for the broker's answer: ErrRefused. A second subscription to a
// filter takes the place of the first.
func (l *Link) Subscribe(ctx context.Context, filter string, qos byte, handle Handler) error {
	sub := &subscription{filter: filter, qos: min(qos, 1), handle: handle}
	l.mu.Lock()
	if old := l.subs[filter]; old != nil {
		old.gone.Store(true)
	}
	l.subs[filter] = sub
	s := l.live
	l.mu.Unlock()
	if s == nil {
		// A session that is just beginning may have missed it: it is told.
		sub.missed.Store(true)
		l.asked()
		return nil
	}
	if err := subscribe(ctx, s, sub); err != nil {
		return fmt.Errorf("link: subscribe %s: %w", filter, err)
	}
	return nil
}

// Unsubscribe ends a subscription: its handler is not called again, apart from
// a call that has begun. Without a session it returns at once.
func (l *Link) Unsubscribe(ctx context.Context, filter string) error {
	l.mu.Lock()
	if sub := l.subs[filter]; sub != nil {
		sub.gone.Store(true)
	}
	delete(l.subs, filter)
	s := l.live
	l.mu.Unlock()
	if s == nil {
		return nil
	}
	if _, err := s.ask(ctx, func(c mqtt.Client) mqtt.Token { return c.Unsubscribe(filter) }); err != nil {
		return fmt.Errorf("link: unsubscribe %s: %w", filter, err)
	}
	return nil
}

func (l *Link) subscriptions() []*subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*subscription, 0, len(l.subs))
	for _, s := range l.subs {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *subscription) int { return strings.Compare(a.filter, b.filter) })
	return out
}

// subscribe asks for one filter a packet: the guard relies on it.
func subscribe(ctx context.Context, s *session, sub *subscription) error {
	t, err := s.ask(ctx, func(c mqtt.Client) mqtt.Token { return c.Subscribe(sub.filter, sub.qos, nil) })
	if err != nil {
		return err
	}
	if st, ok := t.(*mqtt.SubscribeToken); ok && st.Result()[sub.filter] > 2 {
		return ErrRefused
	}
	return nil
}

// asked tells the session that some subscription wants to be made again.
func (l *Link) asked() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// receive is called by the MQTT client and must not block.
func (l *Link) receive(_ mqtt.Client, m mqtt.Message) {
	topic, payload := m.Topic(), m.Payload()
	if len(payload) > wire.MaxMessage {
		l.oversize.Add(1)
		l.cfg.Log.Warn("message over its size limit dropped", "topic", topic, "bytes", len(payload))
		return
	}
	l.mu.Lock()
	var to []*subscription
	for _, s := range l.subs {
		if matches(s.filter, topic) {
			to = append(to, s)
		}
	}
	l.mu.Unlock()
	for _, s := range to {
		it := item{sub: s, topic: topic, payload: payload}
		switch {
		case s.qos == 0:
			if !l.lossy.put(it) {
				l.dropped.Add(1)
			}
		case !l.reliable.put(it):
			l.overflows.Add(1)
			l.cfg.Log.Error("message queue full; the subscription will be renewed", "topic", topic, "filter", s.filter)
			s.missed.Store(true) // asked for when the queue is empty
		}
	}
}

// matches says whether a topic filter matches a topic.
func matches(filter, topic string) bool {
	for {
		f, fRest, fMore := strings.Cut(filter, "/")
		t, tRest, tMore := strings.Cut(topic, "/")
		switch {
		case f == "#":
			return true
		case f != "+" && f != t:
			return false
		case !tMore:
			return !fMore || fRest == "#"
		case !fMore:
			return false
		}
		filter, topic = fRest, tRest
	}
}
