package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
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

// Part is where the bytes go; store.Part is one.
type Part interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Size() (int64, error)
}

// Config of a Fetcher. It needs a Source or a Reader.
type Config struct {
	Near   []Reader // asked first, for they cost nothing: folders
	Source Source   // the hub, through the broker
	Far    []Reader // asked, in this order, for what the Source does not bring

	Pause    time.Duration // first wait for an answer; default 2 s. It doubles while nothing comes
	MaxPause time.Duration // default 1 min
	Retries  int           // requests in a row, for each source, that brought nothing; default 12, about 10 min
	Rate     int64         // bytes a second asked for over the network, at most; 0: no bound
	Logger   *slog.Logger
}

// Fetcher fetches one blob at a time. Deliver and Stats may be called from any
// goroutine, Fetch from one at a time.
type Fetcher struct {
	cfg   Config
	in    chan chunk // bounded: a full queue drops, and the chunk is asked for again
	stats counters
	pace  pace // of the goroutine of Fetch

	mu     sync.Mutex
	digest string // of the blob being fetched; "" between fetches
	budget *Budget
}

type chunk struct {
	digest string
	index  int
	data   []byte
	shared bool // it came by Deliver
}

type counters struct {
	good, duplicate, corrupt, unasked, overflow, requests, again, moved, bytes atomic.Uint64
}

// Stats counts what came in since the start.
type Stats struct {
	Good      uint64 // chunks written
	Duplicate uint64 // chunks that were already here
	Corrupt   uint64 // chunks that are not what was signed
	Unasked   uint64 // chunks of another blob, or of none
	Overflow  uint64 // chunks dropped because they came faster than they could be written
	Requests  uint64 // to any source
	Again     uint64 // of these, for chunks that were asked for before
	Moved     uint64 // sources that failed, so that another one was asked
	Bytes     uint64 // received over the network for blobs that were being fetched
}

// New makes a Fetcher.
func New(cfg Config) *Fetcher {
	if cfg.Source == nil && len(cfg.Near)+len(cfg.Far) == 0 {
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
	return &Fetcher{cfg: cfg, in: make(chan chunk, 4*Window), pace: newPace(cfg.Rate)}
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
	case f.in <- chunk{digest: digest, index: index, data: data, shared: true}:
	default:
		f.stats.overflow.Add(1)
	}
}

// Stats is what came in since the start.
func (f *Fetcher) Stats() Stats {
	s := &f.stats
	return Stats{
		Good: s.good.Load(), Duplicate: s.duplicate.Load(), Corrupt: s.corrupt.Load(), Unasked: s.unasked.Load(),
		Overflow: s.overflow.Load(), Requests: s.requests.Load(), Again: s.again.Load(), Moved: s.moved.Load(), Bytes: s.bytes.Load(),
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
	job := newJob(f, ref, part, budget, progress)
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
	type doner interface{ Done(blob string) }
	if d, ok := f.cfg.Source.(doner); ok {
		d.Done(digest)
	}
	for _, r := range slices.Concat(f.cfg.Near, f.cfg.Far) {
		if d, ok := r.(doner); ok {
			d.Done(digest)
		}
	}
}

// jitter spreads a pause over 75 to 125 %, so that devices that lost the same
// chunk do not ask for it in the same moment.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}
