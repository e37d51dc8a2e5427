package outbox

import (
	"context"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// slot is the newest message of a topic.
type slot struct {
	payload []byte
	version uint64 // grows with every change
	sent    uint64 // version that was sent
}

// Latest sets the newest message of a topic. One that was not sent yet is
// replaced. It does not keep payload. wire.ErrTooLarge.
func (o *Outbox) Latest(topic string, payload []byte) error {
	if len(topic) > maxTopic || len(payload) > wire.MaxMessage {
		return fmt.Errorf("outbox: latest %q: %w: %d bytes", topic[:min(len(topic), maxTopic)], wire.ErrTooLarge, len(payload))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.latest[topic]
	if s == nil {
		s = &slot{}
		o.latest[topic] = s
		o.order = append(o.order, topic)
	}
	s.payload = append([]byte(nil), payload...)
	s.version++
	o.kick()
	return nil
}

// Resend has every Latest message sent again, and ends a pause after a failure.
// It is for the beginning of a session: a broker may have forgotten what it
// retained.
func (o *Outbox) Resend() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range o.latest {
		s.version++
	}
	o.kick()
}

// kick wakes Run.
func (o *Outbox) kick() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Pauses after a failure to send.
const (
	minPause = time.Second
	maxPause = 30 * time.Second
)

// Run sends what waits until ctx is done, and then returns nil. send returns
// nil when the message has arrived; it is tried again until it does, the
// Latest ones first, the others in order. After a failure Run waits, up to 30
// seconds, or until something happens: a Put, a Latest, a Resend.
func (o *Outbox) Run(ctx context.Context, send func(ctx context.Context, topic string, payload []byte) error) error {
	tick := time.NewTicker(o.cfg.SyncEvery)
	defer tick.Stop()
	pause := minPause
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			o.locked(o.sync)
			return nil
		case <-tick.C:
			o.locked(func() {
				if o.memory > 0 {
					o.spill()
				}
				o.sync()
			})
			continue
		case <-timer.C:
		case <-o.wake:
		}
		switch more, err := o.step(ctx, send); {
		case err != nil:
			timer.Reset(pause)
			pause = min(2*pause, maxPause)
		case more:
			pause = minPause
			o.locked(o.kick)
		}
	}
}

func (o *Outbox) locked(do func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	do()
}

// step sends one message, if there is one, and says whether there was.
func (o *Outbox) step(ctx context.Context, send func(ctx context.Context, topic string, payload []byte) error) (more bool, err error) {
	if topic, payload, version, ok := o.dirty(); ok {
		if err := send(ctx, topic, payload); err != nil {
			return false, err
		}
		o.locked(func() { o.latest[topic].sent = version; o.stats.Sent++ })
		return true, nil
	}
	seq, topic, payload, ok := o.front()
	if !ok {
		return false, nil
	}
	if err := send(ctx, topic, payload); err != nil {
		return false, err
	}
	o.locked(func() {
		// It may have been given up for newer ones meanwhile.
		if len(o.queue) > 0 && o.queue[0].seq == seq {
			o.pop()
		}
		o.stats.Sent++
	})
	return true, nil
}

func (o *Outbox) dirty() (topic string, payload []byte, version uint64, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, t := range o.order {
		if s := o.latest[t]; s.sent != s.version {
			return t, s.payload, s.version, true
		}
	}
	return "", nil, 0, false
}

// front is the oldest message. One that can no longer be read is dropped.
func (o *Outbox) front() (seq uint64, topic string, payload []byte, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) > 0 {
		e := o.queue[0]
		if e.seg == nil {
			return e.seq, e.topic, e.payload, true
		}
		topic, payload, err := e.seg.read(e.place)
		if err == nil {
			return e.seq, topic, payload, true
		}
		o.cfg.Log.Error("outbox record lost", "error", err)
		o.stats.Dropped++
		o.pop()
	}
	return 0, "", nil, false
}
