package multicast

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// Config is what a Server needs. Times, Limits and Now have defaults.
type Config struct {
	// Allowed is the length of a blob that a device may have; an error says
	// that it may not. Its answer is remembered for a few seconds.
	Allowed func(ctx context.Context, device, digest string) (int64, error)
	// Read reads into p from an offset of a blob.
	Read func(ctx context.Context, digest string, p []byte, off int64) (int, error)
	// Publish sends a chunk to everybody who listens. It may block: that is
	// the pace.
	Publish func(ctx context.Context, digest string, chunk int, data []byte) error
	// Repair sends a chunk to one device; it may block too.
	Repair func(ctx context.Context, device, digest string, chunk int, data []byte) error
	Logger *slog.Logger

	Times Times
	Now   func() time.Time
}

// Times are the moments that requests wait for each other.
type Times struct {
	Gather    time.Duration // before a blob begins to flow, at least; each device that joins in makes it longer; default 50 ms
	GatherMax time.Duration // and at most, however many ask; default 8 s
	Hold      time.Duration // before the second sending of a chunk, at least; default 50 ms
	PerDevice time.Duration // added for each device that asks; default 10 ms
	HoldMax   time.Duration // before the second sending of a chunk, at most; default 10 s
}

const (
	period     = time.Hour        // in which a chunk is sent twice to all, and a bucket refills
	retryPause = time.Second      // after a sending failed
	remembered = 10 * time.Second // answers of Allowed

	maxInbox   = 1 << 14 // requests waiting
	maxAnswers = 1 << 16
	getBurst   = 512 // requests a device may send at once
	getRefill  = 32  // and a second
)

// Stats count since the start.
type Stats struct {
	Requests, Chunks, Bytes, Coalesced, Throttled, Refused int64
	Second                                                 int64 // of Chunks: sent to all for the second time
	Repairs                                                int64 // of Chunks: sent to one device
}

// Server collects and publishes. Request and Pay may be called from any
// goroutine.
type Server struct {
	cfg  Config
	wake chan struct{} // cap 1

	mu    sync.Mutex
	inbox []request
	gets  buckets // of requests, by device

	book    *book // of Run; its buckets are guarded by mu
	answers map[asker]answer

	requests, chunks, bytes, coalesced, throttled, refused, second, repairs atomic.Int64
}

type request struct {
	device string
	get    wire.Get
}

type asker struct{ device, digest string }

type answer struct {
	size  int64
	err   error
	until time.Time
}

// New makes a Server; Run serves.
func New(cfg Config) *Server {
	t := &cfg.Times
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&t.Gather, 50 * time.Millisecond}, {&t.GatherMax, 8 * time.Second}, {&t.Hold, 50 * time.Millisecond}, {&t.PerDevice, 10 * time.Millisecond}, {&t.HoldMax, 10 * time.Second}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Server{
		cfg: cfg, wake: make(chan struct{}, 1), gets: newBuckets(), book: newBook(cfg.Times), answers: map[asker]answer{},
	}
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{
		Requests: s.requests.Load(), Chunks: s.chunks.Load(), Bytes: s.bytes.Load(), Coalesced: s.coalesced.Load(),
		Throttled: s.throttled.Load(), Refused: s.refused.Load(), Second: s.second.Load(), Repairs: s.repairs.Load(),
	}
}

// Request takes one Get of a device. It does not block.
func (s *Server) Request(device string, payload []byte) {
	s.requests.Add(1)
	var get wire.Get
	if err := wire.Decode(payload, wire.MaxMessage, &get); err != nil {
		s.refuse(device, err)
		return
	}
	if !wire.ValidDigest(get.Blob) || get.First < 0 || get.First > wire.MaxBlob/wire.ChunkSize || len(get.Want) > wire.MaxWant || len(get.Boot) > 64 {
		s.refuse(device, fmt.Errorf("%w: blob %.80q, first %d, %d bytes of bitmap", wire.ErrMalformed, get.Blob, get.First, len(get.Want)))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inbox) >= maxInbox || !s.gets.pay(asker{device: device}, getBurst, getRefill, 1, s.cfg.Now()) {
		s.throttled.Add(1)
		return
	}
	s.inbox = append(s.inbox, request{device, get})
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Pay takes what another way of serving a blob costs out of the device's bucket
// for it, and says whether it could be paid: all ways share what a device may
// have.
func (s *Server) Pay(device, digest string, size int64, chunks int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := s.book.pay(device, digest, size, chunks, s.cfg.Now())
	if !ok {
		s.throttled.Add(int64(chunks))
	}
	return ok
}

func (s *Server) refuse(device string, err error) {
	s.refused.Add(1)
	s.cfg.Logger.Warn("request for chunks refused", "device", device, "error", err)
}

// Run serves until ctx ends. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	buf := make([]byte, wire.ChunkSize)
	for ctx.Err() == nil {
		s.read(ctx)
		s.mu.Lock()
		it, wait := s.book.next(s.cfg.Now())
		s.mu.Unlock()
		if it == nil {
			s.sleep(ctx, wait)
			continue
		}
		if err := s.send(ctx, it, buf); err != nil && ctx.Err() == nil {
			s.refused.Add(1)
			s.cfg.Logger.Warn("chunk not sent", "blob", it.digest, "chunk", it.chunk, "error", err)
			s.mu.Lock()
			s.book.drop() // whoever still wants something asks again
			s.mu.Unlock()
			s.sleep(ctx, retryPause)
		}
	}
	return nil
}

// sleep waits for requests, or until something is due; 0 means that nothing is.
func (s *Server) sleep(ctx context.Context, d time.Duration) {
	var due <-chan time.Time
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-due:
	}
}

// read enters what has come in.
func (s *Server) read(ctx context.Context) {
	s.mu.Lock()
	inbox := s.inbox
	s.inbox = nil
	s.mu.Unlock()
	for i := range inbox {
		q := &inbox[i]
		size, err := s.allowed(ctx, q.device, q.get.Blob)
		if err == nil {
			s.mu.Lock()
			var r taken
			r, err = s.book.take(q.device, &q.get, size, s.cfg.Now())
			s.mu.Unlock()
			s.coalesced.Add(int64(r.coalesced))
			s.throttled.Add(int64(r.throttled))
		}
		if err != nil && ctx.Err() == nil {
			s.refuse(q.device, err)
		}
	}
}

// allowed asks Config.Allowed, or remembers what it said.
func (s *Server) allowed(ctx context.Context, device, digest string) (int64, error) {
	k, now := asker{device, digest}, s.cfg.Now()
	if a, ok := s.answers[k]; ok && now.Before(a.until) {
		return a.size, a.err
	}
	if len(s.answers) >= maxAnswers {
		clear(s.answers)
	}
	size, err := s.cfg.Allowed(ctx, device, digest)
	s.answers[k] = answer{size, err, now.Add(remembered)}
	return size, err
}

func (s *Server) send(ctx context.Context, it *item, buf []byte) error {
	ref := wire.BlobRef{Digest: it.digest, Size: it.size}
	n, err := s.cfg.Read(ctx, it.digest, buf[:ref.ChunkLen(it.chunk)], int64(it.chunk)*wire.ChunkSize)
	if err != nil && n < ref.ChunkLen(it.chunk) {
		return fmt.Errorf("read: %w", err)
	}
	began := s.cfg.Now()
	if it.device != "" {
		err = s.cfg.Repair(ctx, it.device, it.digest, it.chunk, buf[:n])
	} else {
		err = s.cfg.Publish(ctx, it.digest, it.chunk, buf[:n])
	}
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	s.chunks.Add(1)
	s.bytes.Add(int64(n))
	switch {
	case it.device != "":
		s.repairs.Add(1)
	case it.second:
		s.second.Add(1)
	}
	s.mu.Lock()
	s.book.sent(it, s.cfg.Now().Sub(began), s.cfg.Now())
	s.mu.Unlock()
	return nil
}
