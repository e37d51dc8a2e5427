package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// How a fetch may end but by success and by its context.
var (
	ErrStalled = errors.New("fetch: chunks do not come")
	ErrBudget  = errors.New("fetch: data budget used up")
	ErrBusy    = errors.New("fetch: another blob is on its way")
)

// Window is the number of chunks asked for at a time: 1 MiB.
const Window = 16

// Source passes on a request for chunks; they come by Fetcher.Deliver, at any
// time, in any order, or not at all. A Source that also has a method
// Done(blob string) is told when no more chunks of a blob are wanted.
type Source interface {
	// Request asks for the chunks first + i of a blob whose bit i of want is
	// set, least significant bit of the first byte first. It returns when the
	// request is on its way; an error counts as an answer that did not come.
	Request(ctx context.Context, blob string, first int, want []byte) error
}

// Part is where the bytes go; store.Part is one.
type Part interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Size() (int64, error)
}

// Config of a Fetcher. Only Source is needed.
type Config struct {
	Source   Source
	Pause    time.Duration // first wait for a window; default 2 s. It doubles while nothing comes
	MaxPause time.Duration // default 1 min
	Retries  int           // windows in a row that brought nothing; default 12, about 10 min
	Logger   *slog.Logger
}

// Fetcher fetches one blob at a time. Deliver and Stats may be called from any
// goroutine, Fetch from one at a time.
type Fetcher struct {
	cfg   Config
	in    chan chunk // bounded: a full queue drops, and the chunk is asked for again
	stats counters

	mu     sync.Mutex
	digest string // of the blob being fetched; "" between fetches
	budget *Budget
}

type chunk struct {
	digest string
	index  int
	data   []byte
}

type counters struct {
	good, duplicate, corrupt, unasked, overflow, requests, bytes atomic.Uint64
}

// Stats counts what came in since the start.
type Stats struct {
	Good      uint64 // chunks written
	Duplicate uint64 // chunks that were already here
	Corrupt   uint64 // chunks that are not what was signed
	Unasked   uint64 // chunks of another blob, or of none
	Overflow  uint64 // chunks dropped because they came faster than they could be written
	Requests  uint64
	Bytes     uint64 // received for blobs that were being fetched
}

// New makes a Fetcher.
func New(cfg Config) *Fetcher {
	if cfg.Source == nil {
		panic("internal error: fetch: no source")
	}
	if cfg.Pause <= 0 {
		cfg.Pause = 2 * time.Second
	}
	if cfg.MaxPause < cfg.Pause {
		cfg.MaxPause = max(time.Minute, cfg.Pause)
	}
	if cfg.Retries <= 0 {
		cfg.Retries = 12
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Fetcher{cfg: cfg, in: make(chan chunk, 4*Window)}
}

// Deliver hands over a chunk that arrived. It never blocks and checks nothing
// but whether anybody waits for it. The data must not be changed afterwards.
func (f *Fetcher) Deliver(digest string, index int, data []byte) {
	f.mu.Lock()
	wanted, budget := f.digest != "" && digest == f.digest, f.budget
	f.mu.Unlock()
	if !wanted {
		f.stats.unasked.Add(1)
		return
	}
	f.stats.bytes.Add(uint64(len(data)))
	budget.add(len(data))
	select {
	case f.in <- chunk{digest, index, data}:
	default:
		f.stats.overflow.Add(1)
	}
}

// Stats is what came in since the start.
func (f *Fetcher) Stats() Stats {
	s := &f.stats
	return Stats{
		Good: s.good.Load(), Duplicate: s.duplicate.Load(), Corrupt: s.corrupt.Load(), Unasked: s.unasked.Load(),
		Overflow: s.overflow.Load(), Requests: s.requests.Load(), Bytes: s.bytes.Load(),
	}
}

// Fetch brings the chunks of ref that part lacks and returns when all are
// there and synced. The part then has the blob's size; its digest as a whole is
// not checked here. It returns ctx's error as soon as ctx ends, ErrBudget,
// ErrStalled, or an error of the part; what came stays in the part. progress,
// which may be nil, is called from this goroutine with bytes here and bytes in
// all.
func (f *Fetcher) Fetch(ctx context.Context, ref wire.BlobRef, part Part, budget *Budget, progress func(done, total int64)) error {
	if budget == nil {
		budget = NewBudget(0, 0)
	}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if !f.begin(ref.Digest, budget) {
		return fmt.Errorf("fetch: blob %s: %w", ref.Digest, ErrBusy)
	}
	defer f.end(ref.Digest)
	job := &job{f: f, ref: ref, part: part, budget: budget, progress: progress}
	if err := job.resume(ctx); err != nil {
		return fmt.Errorf("fetch: blob %s: %w", ref.Digest, err)
	}
	if err := job.run(ctx); err != nil {
		return fmt.Errorf("fetch: blob %s: %w", ref.Digest, err)
	}
	return nil
}

func (f *Fetcher) begin(digest string, b *Budget) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.digest != "" {
		return false
	}
	f.digest, f.budget = digest, b
	return true
}

func (f *Fetcher) end(digest string) {
	f.mu.Lock()
	f.digest, f.budget = "", nil
	f.mu.Unlock()
	for {
		select {
		case <-f.in:
			f.stats.unasked.Add(1)
			continue
		default:
		}
		break
	}
	if d, ok := f.cfg.Source.(interface{ Done(blob string) }); ok {
		d.Done(digest)
	}
}

// jitter spreads a pause over 75 to 125 %, so that devices that lost the same
// chunk do not ask for it in the same moment.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
