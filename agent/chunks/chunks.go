// Package chunks asks the hub for chunks of blobs over the device's MQTT
// session, and hands over what comes.
//
// For each blob the device listens to the blob's shared topic from the first
// request until the fetch is done with it, so that what another device asked for
// counts too; and, from the first request of all on, to its own topic, where the
// hub repairs what the shared one did not bring. A fetch that is better off
// alone has the source leave the shared topic.
package chunks

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
)

// Link is the session; *link.Link is one.
type Link interface {
	Subscribe(ctx context.Context, filter string, qos byte, handle link.Handler) error
	Unsubscribe(ctx context.Context, filter string) error
	Publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error
}

// Config is what a Source is made of.
type Config struct {
	Fleet, Device string
	Link          Link
	// Header makes the header of the next message.
	Header func() wire.Header
	// Deliver takes a chunk that came. It must not block.
	Deliver func(digest string, chunk int, data []byte)
	Logger  *slog.Logger
}

// Source is a fetch.Source, fetch.Repairer and fetch.Settler. It is safe for concurrent use.
type Source struct {
	cfg    Config
	topics wire.Topics
	gone   chan string // blobs that are not wanted any more

	mu        sync.Mutex
	listening string // blob whose shared topic is subscribed to
	own       bool   // the device's own topic is
}

// New makes a Source; Run tidies up behind it.
func New(c Config) *Source {
	return &Source{cfg: c, topics: wire.Topics{Fleet: c.Fleet}, gone: make(chan string, 8)}
}

// Request implements fetch.Source.
func (s *Source) Request(ctx context.Context, blob string, first int, want []byte) error {
	return s.ask(ctx, wire.Get{Blob: blob, First: first, Want: want})
}

// Repair implements fetch.Repairer.
func (s *Source) Repair(ctx context.Context, blob string, first int, want []byte, alone bool) error {
	if alone {
		if err := s.leave(ctx, blob); err != nil {
			return err
		}
	}
	return s.ask(ctx, wire.Get{Blob: blob, First: first, Want: want, Again: !alone, Alone: alone})
}

// nothing is the filter of a blob that cannot be.
const nothing = "0000000000000000000000000000000000000000000000000000000000000000"

// Settle implements fetch.Settler: the broker answers in order, so its answer
// to any question comes behind the chunks that it had for this device. The
// question is one that changes nothing.
func (s *Source) Settle(ctx context.Context) error {
	return s.cfg.Link.Unsubscribe(ctx, s.topics.BlobAll(nothing))
}

func (s *Source) ask(ctx context.Context, g wire.Get) error {
	if err := s.listen(ctx, g.Blob, g.Alone); err != nil {
		return err // the next request tries again
	}
	g.Header = s.cfg.Header()
	return s.cfg.Link.Publish(ctx, s.topics.Device(s.cfg.Device, wire.LeafGet), wire.Encode(g), 1, false)
}

// listen subscribes to what is not subscribed to yet.
func (s *Source) listen(ctx context.Context, blob string, alone bool) error {
	s.mu.Lock()
	own, shared := s.own, alone || s.listening == blob
	s.mu.Unlock()
	if !own {
		if err := s.cfg.Link.Subscribe(ctx, s.topics.Repairs(s.cfg.Device), 0, s.repaired); err != nil {
			return err
		}
		s.mu.Lock()
		s.own = true
		s.mu.Unlock()
	}
	if shared {
		return nil
	}
	err := s.cfg.Link.Subscribe(ctx, s.topics.BlobAll(blob), 0, func(topic string, payload []byte) {
		if t, err := wire.ParseTopic(topic); err == nil && t.Blob == blob {
			s.cfg.Deliver(blob, t.Chunk, payload)
		}
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.listening = blob
	s.mu.Unlock()
	return nil
}

// repaired takes a chunk on the device's own topic.
func (s *Source) repaired(topic string, payload []byte) {
	t, err := wire.ParseTopic(topic)
	if err == nil && t.Leaf != wire.LeafBlob {
		err = wire.ErrTopic
	}
	digest, chunk, data, bad := wire.ParseRepair(t.Rest, payload)
	if err = errors.Join(err, bad); err != nil {
		s.cfg.Logger.Warn("repair not understood", "topic", topic, "error", err)
		return
	}
	s.cfg.Deliver(digest, chunk, data)
}

func (s *Source) leave(ctx context.Context, blob string) error {
	s.mu.Lock()
	listening := s.listening == blob
	s.mu.Unlock()
	if !listening {
		return nil
	}
	if err := s.cfg.Link.Unsubscribe(ctx, s.topics.BlobAll(blob)); err != nil {
		return err
	}
	s.mu.Lock()
	s.listening = ""
	s.mu.Unlock()
	return nil
}

// Done is told by a fetch that nothing more of a blob is wanted; it does not
// block.
func (s *Source) Done(blob string) {
	s.mu.Lock()
	was := s.listening == blob
	if was {
		s.listening = ""
	}
	s.mu.Unlock()
	if !was {
		return
	}
	select {
	case s.gone <- blob:
	default: // a topic that nobody publishes on any more costs nothing
	}
}

// Run ends subscriptions that are not needed any more, until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case blob := <-s.gone:
			s.mu.Lock()
			again := s.listening == blob
			s.mu.Unlock()
			if again {
				continue
			}
			if err := s.cfg.Link.Unsubscribe(ctx, s.topics.BlobAll(blob)); err != nil {
				s.cfg.Logger.Debug("unsubscribe", "blob", blob, "error", err)
			}
		}
	}
}
