package agent

import (
	"context"
	"sync"

	"github.com/droverhq/drover/agent/wire"
)

// chunkSource asks the hub for chunks over the link. It listens to a blob's
// topic from its first request until the fetch is done with it, so that chunks
// another device asked for count too.
type chunkSource struct {
	agent  *Agent
	member *member
	gone   chan string // in: blobs that are not wanted any more

	mu        sync.Mutex
	listening string
}

func newChunkSource(a *Agent, m *member) *chunkSource {
	return &chunkSource{agent: a, member: m, gone: make(chan string, 8)}
}

// Request implements fetch.Source.
func (s *chunkSource) Request(ctx context.Context, blob string, first int, want []byte) error {
	topics := wire.Topics{Fleet: s.member.fleet}
	s.mu.Lock()
	listening := s.listening == blob
	s.mu.Unlock()
	if !listening {
		err := s.member.link.Subscribe(ctx, topics.BlobAll(blob), 0, func(topic string, payload []byte) {
			if t, err := wire.ParseTopic(topic); err == nil && t.Blob == blob {
				s.member.updater.OfferChunk(t.Blob, t.Chunk, payload)
			}
		})
		if err != nil {
			return err // the next request tries again
		}
		s.mu.Lock()
		s.listening = blob
		s.mu.Unlock()
	}
	get := wire.Get{Header: s.agent.header(), Blob: blob, First: first, Want: want}
	return s.member.link.Publish(ctx, topics.Device(s.agent.cfg.Device, wire.LeafGet), wire.Encode(get), 1, false)
}

// Done implements the other half of fetch.Source; it does not block.
func (s *chunkSource) Done(blob string) {
	s.mu.Lock()
	if s.listening == blob {
		s.listening = ""
	}
	s.mu.Unlock()
	select {
	case s.gone <- blob:
	default: // a topic that nobody publishes on any more costs nothing
	}
}

// run ends subscriptions that are not needed any more.
func (s *chunkSource) run(ctx context.Context) error {
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
			if err := s.member.link.Unsubscribe(ctx, wire.Topics{Fleet: s.member.fleet}.BlobAll(blob)); err != nil {
				s.agent.log.Debug("unsubscribe", "blob", blob, "error", err)
			}
		}
	}
}
