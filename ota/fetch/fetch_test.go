package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memPart is a part in memory.
type memPart struct {
	mu     sync.Mutex
	b      []byte
	synced []byte
	writes int
	full   int // bytes it takes; 0: any
}

func (p *memPart) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(p.b).ReadAt(b, off)
}

func (p *memPart) WriteAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	end := int(off) + len(b)
	if p.full > 0 && end > p.full {
		return 0, syscall.ENOSPC
	}
	if end > len(p.b) {
		p.b = append(p.b, make([]byte, end-len(p.b))...)
	}
	p.writes++
	return copy(p.b[off:], b), nil
}

func (p *memPart) Truncate(n int64) error { p.b = p.b[:n]; return nil }
func (p *memPart) Sync() error            { p.synced = bytes.Clone(p.b); return nil }
func (p *memPart) Size() (int64, error)   { return int64(len(p.b)), nil }

// send says which chunk sent it is: of all, which request, which of that.
type send struct{ all, request, of int }

// hub answers requests like a broker would: later, and as badly as told.
type hub struct {
	f       *Fetcher
	blob    []byte
	spoil   func(n send, chunk int, data []byte) [][]byte // what is sent instead
	asked   []int                                         // every chunk ever asked for
	done    []string
	sends   send
	refuse  error
	biggest int // request, in chunks
}

func (h *hub) Request(_ context.Context, digest string, first int, want []byte) error {
	if h.refuse != nil {
		return h.refuse
	}
	g := wire.Get{Blob: digest, First: first, Want: want}
	chunks := g.Chunks()
	h.biggest = max(h.biggest, len(chunks))
	h.asked = append(h.asked, chunks...)
	h.sends.of = 0
	for _, c := range chunks {
		lo := c * wire.ChunkSize
		data := h.blob[lo:min(lo+wire.ChunkSize, len(h.blob))]
		out := [][]byte{data}
		if h.spoil != nil {
			out = h.spoil(h.sends, c, data)
		}
		h.sends.all++
		h.sends.of++
		for _, d := range out {
			h.f.Deliver(digest, c, d)
		}
	}
	h.sends.request++
	return nil
}

func (h *hub) Done(blob string) { h.done = append(h.done, blob) }

func setup(blob []byte) (*Fetcher, *hub) {
	h := &hub{blob: blob}
	f := New(Config{Source: h})
	h.f = f
	return f, h
}

func randomBlob(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = r.Read(b)
	return b
}

func flip(b []byte) []byte {
	c := bytes.Clone(b)
	c[len(c)/2] ^= 1
	return c
}

func TestFetchOverBadLinks(t *testing.T) {
	const c = wire.ChunkSize
	links := map[string]func(send, int, []byte) [][]byte{
		"good":             nil,
		"every third lost": func(n send, _ int, d []byte) [][]byte { return [][]byte{d}[:min(1, n.all%3)] },
		"first is corrupt": func(n send, _ int, d []byte) [][]byte {
			if n.all%5 == 0 && len(d) > 0 {
				return [][]byte{flip(d)}
			}
			return [][]byte{d}
		},
		"all twice":              func(_ send, _ int, d []byte) [][]byte { return [][]byte{d, d} },
		"rubbish before each":    func(_ send, _ int, d []byte) [][]byte { return [][]byte{{1, 2, 3}, append(bytes.Clone(d), 0), d} },
		"one request in two":     func(n send, _ int, d []byte) [][]byte { return [][]byte{d}[:min(1, n.request%2)] },
		"one chunk per request":  func(n send, _ int, d []byte) [][]byte { return [][]byte{d}[:max(0, 1-n.of)] },
		"nothing for six rounds": func(n send, _ int, d []byte) [][]byte { return [][]byte{d}[:min(1, n.request/6)] },
	}
	for name, spoil := range links {
		for _, size := range []int{1, c - 1, c, c + 1, 16 * c, 40*c + 17} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					blob := randomBlob(size)
					f, h := setup(blob)
					h.spoil = spoil
					part := &memPart{}
					var last int64
					err := f.Fetch(t.Context(), wire.NewBlobRef(blob), part, nil, func(done, total int64) {
						if done < last || total != int64(size) {
							t.Errorf("progress %d of %d after %d", done, total, last)
						}
						last = done
					})
					if err != nil || !bytes.Equal(part.synced, blob) || last != int64(size) {
						t.Fatalf("%d bytes: %v, %d synced, progress %d", size, err, len(part.synced), last)
					}
					if h.biggest > Window || len(h.done) != 1 {
						t.Errorf("asked for %d chunks at once, told %d times that it is done", h.biggest, len(h.done))
					}
					if s := f.Stats(); int(s.Good) != wire.NewBlobRef(blob).Count() || part.writes != int(s.Good) {
						t.Errorf("%+v with %d writes", s, part.writes)
					}
				})
			})
		}
	}
}

func TestEmptyBlobNeedsNoNetwork(t *testing.T) {
	f, h := setup(nil)
	if err := f.Fetch(t.Context(), wire.NewBlobRef(nil), &memPart{}, nil, nil); err != nil || len(h.asked) != 0 {
		t.Errorf("%v, asked for %v", err, h.asked)
	}
}

func TestCorruptChunkCostsOneChunk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(64 * wire.ChunkSize)
		f, h := setup(blob)
		h.spoil = func(n send, chunk int, d []byte) [][]byte {
			if n.all == 21 {
				return [][]byte{flip(d)}
			}
			return [][]byte{d}
		}
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), &memPart{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if s := f.Stats(); s.Corrupt != 1 || len(h.asked) != 65 {
			t.Errorf("%+v, %d chunks asked for", s, len(h.asked))
		}
	})
}

func TestResumeFetchesOnlyWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(50*wire.ChunkSize + 5)
		f, h := setup(blob)
		part := &memPart{b: append(bytes.Clone(blob), "left over from a longer one"...)}
		for _, i := range []int{3, 17, 49} {
			part.b[i*wire.ChunkSize] ^= 1
		}
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), part, nil, nil); err != nil || !bytes.Equal(part.b, blob) {
			t.Fatalf("%v, right: %v", err, bytes.Equal(part.b, blob))
		}
		if len(h.asked) != 3 {
			t.Errorf("asked for %v", h.asked)
		}
	})
}

// A cut costs at most what was not synced: a window.
func TestCutCostsAtMostAWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(60 * wire.ChunkSize)
		ctx, cancel := context.WithCancel(t.Context())
		f, h := setup(blob)
		h.spoil = func(n send, _ int, d []byte) [][]byte {
			if n.all == 40 {
				cancel()
			}
			return [][]byte{d}
		}
		part := &memPart{}
		if err := f.Fetch(ctx, wire.NewBlobRef(blob), part, nil, nil); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		f, h = setup(blob)
		part = &memPart{b: part.synced}
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), part, nil, nil); err != nil {
			t.Fatal(err)
		}
		if n := len(h.asked); n > 60-40+Window {
			t.Errorf("%d chunks fetched again after a cut at 40 of 60", n)
		}
	})
}

func TestManifestWithoutChunkDigests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(3*wire.ChunkSize + 9)
		ref := wire.NewBlobRef(blob)
		ref.Chunks = nil
		f, h := setup(blob)
		h.spoil = func(_ send, _ int, d []byte) [][]byte { return [][]byte{d[:len(d)-1], d} }
		part := &memPart{b: make([]byte, 2*wire.ChunkSize)} // not to be trusted
		if err := f.Fetch(t.Context(), ref, part, nil, nil); err != nil || !bytes.Equal(part.b, blob) {
			t.Fatalf("%v", err)
		}
	})
}

func TestEndings(t *testing.T) {
	blob := randomBlob(32 * wire.ChunkSize)
	ref := wire.NewBlobRef(blob)
	silent := func(send, int, []byte) [][]byte { return nil }
	tests := []struct {
		name   string
		spoil  func(send, int, []byte) [][]byte
		refuse error
		budget *Budget
		part   *memPart
		want   error
		within time.Duration
	}{
		{name: "nobody answers", spoil: silent, want: ErrStalled, within: 15 * time.Minute},
		{name: "requests do not leave", refuse: io.ErrClosedPipe, want: ErrStalled, within: 15 * time.Minute},
		{name: "only rubbish", spoil: func(_ send, _ int, d []byte) [][]byte { return [][]byte{flip(d)} }, want: ErrStalled, within: 15 * time.Minute},
		{name: "budget", budget: NewBudget(20*wire.ChunkSize, 0), want: ErrBudget, within: time.Second},
		{name: "budget used before", budget: NewBudget(40*wire.ChunkSize, 39*wire.ChunkSize), want: ErrBudget, within: time.Second},
		{name: "rubbish uses up the budget", spoil: func(_ send, _ int, d []byte) [][]byte { return [][]byte{flip(d)} }, budget: NewBudget(20*wire.ChunkSize, 0), want: ErrBudget, within: time.Minute},
		{name: "disk full", part: &memPart{full: 10 * wire.ChunkSize}, want: syscall.ENOSPC, within: time.Second},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, h := setup(blob)
				h.spoil, h.refuse = tc.spoil, tc.refuse
				part := tc.part
				if part == nil {
					part = &memPart{}
				}
				start := time.Now()
				err := f.Fetch(t.Context(), ref, part, tc.budget, nil)
				if !errors.Is(err, tc.want) {
					t.Errorf("got %v, want %v", err, tc.want)
				}
				if took := time.Since(start); took > tc.within {
					t.Errorf("took %v", took)
				}
				if len(h.done) != 1 {
					t.Errorf("the source was told %d times that it is done", len(h.done))
				}
			})
		})
	}
}

func TestCancelEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, h := setup(randomBlob(10))
		h.spoil = func(send, int, []byte) [][]byte { return nil }
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		err := f.Fetch(ctx, wire.NewBlobRef(h.blob), &memPart{}, nil, nil)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestStrangersAreDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(20 * wire.ChunkSize)
		ref := wire.NewBlobRef(blob)
		f, h := setup(blob)
		f.Deliver(ref.Digest, 0, blob[:wire.ChunkSize]) // nobody fetches
		h.spoil = func(n send, c int, d []byte) [][]byte {
			if n.all == 0 {
				f.Deliver(wire.NewBlobRef([]byte("other")).Digest, 0, []byte("other"))
				f.Deliver(ref.Digest, -1, d)
				f.Deliver(ref.Digest, 20, d)
				f.Deliver(ref.Digest, 19, blob[19*wire.ChunkSize:]) // asked for by somebody else, and welcome
			}
			return [][]byte{d}
		}
		if err := f.Fetch(t.Context(), ref, &memPart{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		s := f.Stats()
		if s.Unasked != 2 || s.Corrupt != 2 || s.Good != 20 || len(h.asked) != 19 {
			t.Errorf("%+v, %d asked for", s, len(h.asked))
		}
	})
}

func TestAFloodIsDroppedNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(8 * wire.ChunkSize)
		f, h := setup(blob)
		h.spoil = func(n send, c int, d []byte) [][]byte {
			if n.all < 8 { // the queue is full before the loop reads
				for range 100 {
					f.Deliver(wire.NewBlobRef(blob).Digest, c, []byte("flood"))
				}
			}
			return [][]byte{d}
		}
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), &memPart{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		if s := f.Stats(); s.Overflow == 0 || s.Corrupt > uint64(cap(f.in)) {
			t.Errorf("%+v", s)
		}
	})
}

func TestOneFetchAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, h := setup(randomBlob(10))
		h.spoil = func(send, int, []byte) [][]byte { return nil }
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Fetch(ctx, wire.NewBlobRef(h.blob), &memPart{}, nil, nil) }()
		synctest.Wait()
		if err := f.Fetch(ctx, wire.NewBlobRef(h.blob), &memPart{}, nil, nil); !errors.Is(err, ErrBusy) {
			t.Errorf("second fetch: %v", err)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

// slowLink carries one chunk at a time, in the order asked for.
type slowLink struct {
	queue chan int
	asked int
}

func (l *slowLink) Request(_ context.Context, _ string, first int, want []byte) error {
	for _, c := range (&wire.Get{First: first, Want: want}).Chunks() {
		l.asked++
		l.queue <- c
	}
	return nil
}

func TestASlowLinkIsNotAskedTwice(t *testing.T) {
	for _, perChunk := range []time.Duration{100 * time.Millisecond, 3 * time.Second, 8 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			blob := randomBlob(100 * wire.ChunkSize)
			ref := wire.NewBlobRef(blob)
			l := &slowLink{queue: make(chan int, 1000)}
			f := New(Config{Source: l})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					select {
					case c := <-l.queue:
						time.Sleep(perChunk)
						f.Deliver(ref.Digest, c, blob[c*wire.ChunkSize:(c+1)*wire.ChunkSize])
					case <-ctx.Done():
						return
					}
				}
			}()
			part := &memPart{}
			if err := f.Fetch(ctx, ref, part, nil, nil); err != nil || !bytes.Equal(part.b, blob) {
				t.Errorf("%v per chunk: %v", perChunk, err)
			}
			if l.asked > 150 { // the link's pace has to be learnt
				t.Errorf("%v per chunk: asked for %d chunks of 100", perChunk, l.asked)
			}
			t.Logf("%v per chunk: asked for %d chunks of 100", perChunk, l.asked)
			cancel()
			<-ended
		})
	}
}
