// Package multicast answers requests for chunks: it waits a moment, puts the
// requests of all devices together, and publishes each wanted chunk once on a
// topic that all of them listen to. A thousand devices that start the same
// update cost about one copy.
//
// A rogue device cannot make the hub send for ever: requests of a device are
// paid for out of a bucket that refills slowly, a chunk that was just sent is
// not sent again at once, and only blobs that a signed release names are
// served.
package multicast

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// Config is what a Server needs.
type Config struct {
	// Size is the length of a blob that may be served; an error says that it
	// may not.
	Size func(ctx context.Context, digest string) (int64, error)
	// Read reads into p from an offset of a blob.
	Read func(ctx context.Context, digest string, p []byte, off int64) (int, error)
	// Publish sends one chunk. It may block: that is the pace.
	Publish func(ctx context.Context, digest string, chunk int, data []byte) error
	Logger  *slog.Logger

	Gather   time.Duration // how long requests are put together; default 50 ms
	Cooldown time.Duration // a chunk is not sent again within; default 1 s
	Burst    float64       // chunks a device may ask for at once; default 16,384 (1 GiB)
	Refill   float64       // chunks a second that a device's bucket gains; default 32 (2 MiB/s)
	Now      func() time.Time
}

// Bounds on what devices can make a Server remember.
const (
	maxPending = 1 << 16 // chunks waiting
	maxBuckets = 1 << 16 // devices
	maxSent    = 1 << 16 // chunks remembered as just sent
)

// Stats count since the start.
type Stats struct {
	Requests, Chunks, Bytes, Coalesced, Throttled, Refused int64
}

// Server collects and publishes. Request may be called from any goroutine.
type Server struct {
	cfg  Config
	wake chan struct{} // cap 1

	mu      sync.Mutex
	pending map[string]map[int]bool
	waiting int
	buckets map[string]*bucket
	sent    map[key]time.Time

	requests, chunks, bytes, coalesced, throttled, refused atomic.Int64
}

type key struct {
	digest string
	chunk  int
}

type bucket struct {
	tokens float64
	at     time.Time
}

// New makes a Server; Run serves.
func New(cfg Config) *Server {
	if cfg.Gather <= 0 {
		cfg.Gather = 50 * time.Millisecond
	}
	if cfg.Cooldown <= 0 {
		cfg.Cooldown = time.Second
	}
	if cfg.Burst <= 0 {
		cfg.Burst = 16384
	}
	if cfg.Refill <= 0 {
		cfg.Refill = 32
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{
		cfg: cfg, wake: make(chan struct{}, 1),
		pending: map[string]map[int]bool{}, buckets: map[string]*bucket{}, sent: map[key]time.Time{},
	}
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{s.requests.Load(), s.chunks.Load(), s.bytes.Load(), s.coalesced.Load(), s.throttled.Load(), s.refused.Load()}
}

// Request takes one Get of a device. It does not block.
func (s *Server) Request(device string, payload []byte) {
	s.requests.Add(1)
	var get wire.Get
	if err := wire.Decode(payload, wire.MaxMessage, &get); err != nil {
		s.refuse(device, err)
		return
	}
	if !wire.ValidDigest(get.Blob) || get.First < 0 || get.First > wire.MaxBlob/wire.ChunkSize || len(get.Want) > wire.MaxWant {
		s.refuse(device, fmt.Errorf("%w: blob %.80q, first %d, %d bytes of bitmap", wire.ErrMalformed, get.Blob, get.First, len(get.Want)))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	for _, c := range get.Chunks() {
		if s.pending[get.Blob][c] || now.Sub(s.sent[key{get.Blob, c}]) < s.cfg.Cooldown {
			s.coalesced.Add(1)
			continue
		}
		if s.waiting >= maxPending || !s.pay(device, now) {
			s.throttled.Add(1)
			continue
		}
		if s.pending[get.Blob] == nil {
			s.pending[get.Blob] = map[int]bool{}
		}
		s.pending[get.Blob][c] = true
		s.waiting++
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Server) refuse(device string, err error) {
	s.refused.Add(1)
	s.cfg.Logger.Warn("request for chunks refused", "device", device, "error", err)
}

// pay takes one chunk's worth out of a device's bucket.
func (s *Server) pay(device string, now time.Time) bool {
	b := s.buckets[device]
	if b == nil {
		if len(s.buckets) >= maxBuckets {
			clear(s.buckets) // bounds memory; what it forgives is one burst
		}
		b = &bucket{tokens: s.cfg.Burst, at: now}
		s.buckets[device] = b
	}
	b.tokens = min(s.cfg.Burst, b.tokens+now.Sub(b.at).Seconds()*s.cfg.Refill)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	buf := make([]byte, wire.ChunkSize)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
		select { // what comes now goes out together
		case <-ctx.Done():
			return nil
		case <-time.After(s.cfg.Gather):
		}
		for _, blob := range s.take() {
			if err := s.send(ctx, blob, buf); err != nil && ctx.Err() == nil {
				s.refused.Add(1)
				s.cfg.Logger.Warn("chunks not sent", "blob", blob.digest, "error", err)
			}
		}
	}
}

type batch struct {
	digest string
	chunks []int
}

// take empties what is pending, in a stable order.
func (s *Server) take() []batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []batch
	for digest, set := range s.pending {
		b := batch{digest: digest}
		for c := range set {
			b.chunks = append(b.chunks, c)
		}
		slices.Sort(b.chunks)
		out = append(out, b)
	}
	slices.SortFunc(out, func(a, b batch) int { return slices.Compare([]byte(a.digest), []byte(b.digest)) })
	clear(s.pending)
	s.waiting = 0
	return out
}

func (s *Server) send(ctx context.Context, b batch, buf []byte) error {
	size, err := s.cfg.Size(ctx, b.digest)
	if err != nil {
		return err
	}
	ref := wire.BlobRef{Digest: b.digest, Size: size}
	for _, c := range b.chunks {
		if c >= ref.Count() {
			return fmt.Errorf("chunk %d of a blob of %d", c, ref.Count())
		}
		n, err := s.cfg.Read(ctx, b.digest, buf[:ref.ChunkLen(c)], int64(c)*wire.ChunkSize)
		if err != nil {
			return fmt.Errorf("read chunk %d: %w", c, err)
		}
		if err := s.cfg.Publish(ctx, b.digest, c, buf[:n]); err != nil {
			return fmt.Errorf("publish chunk %d: %w", c, err)
		}
		s.chunks.Add(1)
		s.bytes.Add(int64(n))
		s.remember(key{b.digest, c})
	}
	return nil
}

func (s *Server) remember(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.cfg.Now()
	if len(s.sent) >= maxSent {
		for old, at := range s.sent {
			if now.Sub(at) >= s.cfg.Cooldown {
				delete(s.sent, old)
			}
		}
	}
	s.sent[k] = now
}
