package fetch

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// reader is a far source without a network: it brings all that it is asked for,
// after a while, unless it fails.
type reader struct {
	blob  []byte
	takes time.Duration // for each chunk
	fail  func(n int) error

	mu    sync.Mutex
	calls int
	asked []int
	at    []time.Time
}

func (r *reader) Read(ctx context.Context, ref wire.BlobRef, chunks []int, give func(int, []byte)) error {
	r.mu.Lock()
	r.calls++
	n := r.calls
	r.asked = append(r.asked, chunks...)
	r.at = append(r.at, time.Now())
	r.mu.Unlock()
	if r.fail != nil {
		if err := r.fail(n); err != nil {
			return err
		}
	}
	for _, i := range chunks {
		select {
		case <-time.After(r.takes):
		case <-ctx.Done():
			return ctx.Err()
		}
		lo := i * wire.ChunkSize
		give(i, r.blob[lo:lo+ref.ChunkLen(i)])
	}
	return nil
}

// crowd is a hub that has to be reached through a broker: it answers the n-th
// request after a while, or never. It knows of Repair and Settle.
type crowd struct {
	hub
	delay func(n int) (after time.Duration, ever bool)

	again, alone, settles int
	flood                 int // times that chunk 0 comes along with each, from others
	wait                  sync.WaitGroup
	asks                  []time.Time
}

func (c *crowd) Request(ctx context.Context, digest string, first int, want []byte) error {
	n := len(c.asks)
	c.asks = append(c.asks, time.Now())
	after, ever := c.delay(n)
	if !ever {
		return nil
	}
	chunks := (&wire.Get{Blob: digest, First: first, Want: want}).Chunks()
	c.asked = append(c.asked, chunks...)
	flood := c.flood // as it is now: it may leave the topic meanwhile
	c.wait.Go(func() {
		time.Sleep(after)
		for _, i := range chunks {
			lo := i * wire.ChunkSize
			c.f.Deliver(digest, i, c.blob[lo:min(lo+wire.ChunkSize, len(c.blob))])
			for range flood {
				c.f.Deliver(digest, 0, c.blob[:min(wire.ChunkSize, len(c.blob))])
			}
		}
	})
	return nil
}

func (c *crowd) Repair(ctx context.Context, digest string, first int, want []byte, alone bool) error {
	if alone {
		c.alone++
		c.flood = 0 // it left the shared topic
	} else {
		c.again++
	}
	return c.Request(ctx, digest, first, want)
}

func (c *crowd) Settle(context.Context) error { c.settles++; return nil }

func mixed(blob []byte, c Config, delay func(int) (time.Duration, bool)) (*Fetcher, *crowd) {
	h := &crowd{delay: delay}
	h.blob = blob
	c.Source = h
	h.f = New(c)
	return h.f, h
}

func atOnce(int) (time.Duration, bool) { return 0, true }

// A hub that gathers a crowd, for as long as it ever does, is not taken for one
// that is away.
func TestACrowdDoesNotMoveToHTTPS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(40 * wire.ChunkSize)
		far := &reader{blob: blob}
		f, h := mixed(blob, Config{Far: []Reader{far}}, func(n int) (time.Duration, bool) { return max(0, 8-time.Duration(n)*3) * time.Second, n == 0 || n > 2 })
		part := &memPart{}
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), part, nil, nil); err != nil || !bytes.Equal(part.synced, blob) {
			t.Fatal(err)
		}
		h.wait.Wait()
		if far.calls != 0 || f.Stats().Moved != 0 {
			t.Errorf("moved %d times, %d requests by HTTPS", f.Stats().Moved, far.calls)
		}
		if h.settles == 0 || h.again == 0 {
			t.Errorf("settled %d times, asked again %d times", h.settles, h.again)
		}
	})
}

// A window that got lost costs a lonely device one pause.
func TestALostWindowIsSoonAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(10 * wire.ChunkSize)
		f, h := mixed(blob, Config{Far: []Reader{&reader{blob: blob}}}, func(n int) (time.Duration, bool) { return 0, n > 0 })
		began := time.Now()
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), &memPart{}, nil, nil); err != nil {
			t.Fatal(err)
		}
		h.wait.Wait()
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// A hub that is away costs a few seconds once, and is tried again later.
func TestAHubThatIsAway(t *testing.T) {
	for name, refuse := range map[string]error{"silent": nil, "unreachable": errors.New("no session")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				blob := randomBlob(100*wire.ChunkSize + 1)
				gone, broken := &reader{fail: func(int) error { return ErrAbsent }}, &reader{blob: blob, fail: func(n int) error {
					if n%2 == 1 {
						return errors.New("429")
					}
					return nil
				}}
				far := &reader{blob: blob, takes: 200 * time.Millisecond}
				f, h := mixed(blob, Config{Far: []Reader{gone, broken, far}}, func(int) (time.Duration, bool) { return 0, false })
				h.refuse = refuse
				part, began := &memPart{}, time.Now()
				var src Source = h
				if refuse != nil {
					src = &h.hub // its Request refuses
				}
				f.cfg.Source = src
				if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), part, nil, nil); err != nil || !bytes.Equal(part.synced, blob) {
					t.Fatal(err)
				}
				if took := time.Since(began); took > 90*time.Second {
					t.Errorf("took %v", took)
				}
				if gone.calls > 1 {
					t.Errorf("a server that does not have it was asked %d times", gone.calls)
				}
				if st := f.Stats(); st.Good != 101 || st.Bytes > uint64(len(blob)+Window*wire.ChunkSize) {
					t.Errorf("%+v", st)
				}
			})
		})
	}
}

// When nobody has it at first, those who did not are asked again.
func TestNobodyHasItYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(10)
		r := &reader{blob: blob, fail: func(n int) error {
			if n < 4 {
				return ErrAbsent
			}
			return nil
		}}
		part := &memPart{}
		if err := New(Config{Near: []Reader{&reader{fail: func(int) error { return ErrAbsent }}}, Far: []Reader{r}}).Fetch(t.Context(), wire.NewBlobRef(blob), part, nil, nil); err != nil || !bytes.Equal(part.b, blob) {
			t.Fatal(err)
		}
		never := &reader{fail: func(int) error { return ErrAbsent }}
		if err := New(Config{Far: []Reader{never}}).Fetch(t.Context(), wire.NewBlobRef(blob), &memPart{}, nil, nil); !errors.Is(err, ErrStalled) {
			t.Errorf("nobody ever: %v", err)
		}
	})
}

func TestTheRate(t *testing.T) {
	const rate = 100 << 10
	tests := map[string]func([]byte) (*Fetcher, *crowd){
		"over the broker": func(b []byte) (*Fetcher, *crowd) { return mixed(b, Config{Rate: rate}, atOnce) },
		"over HTTPS": func(b []byte) (*Fetcher, *crowd) {
			return New(Config{Rate: rate, Far: []Reader{&reader{blob: b}}}), &crowd{}
		},
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				blob := randomBlob(60 * wire.ChunkSize)
				f, h := make(blob)
				began := time.Now()
				if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), &memPart{}, nil, nil); err != nil {
					t.Fatal(err)
				}
				h.wait.Wait()
				want := time.Duration(len(blob)) * time.Second / rate
				if took := time.Since(began); took < want-2*time.Second || took > want+5*time.Second {
					t.Errorf("took %v, at that rate it is %v", took, want)
				}
			})
		})
	}
	// What costs nothing is not held back.
	synctest.Test(t, func(t *testing.T) {
		blob, began := randomBlob(60*wire.ChunkSize), time.Now()
		if err := New(Config{Rate: 1, Near: []Reader{&reader{blob: blob}}}).Fetch(t.Context(), wire.NewBlobRef(blob), &memPart{}, nil, nil); err != nil || time.Since(began) > time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// A shared topic that brings the same over and over is left; what is missing is
// asked for alone, and the budget is not used up.
func TestItLeavesAFloodedTopic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(40 * wire.ChunkSize)
		f, h := mixed(blob, Config{}, func(int) (time.Duration, bool) { return time.Millisecond, true })
		h.flood = 3
		budget := NewBudget(3*int64(len(blob)), 0)
		part := &memPart{}
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), part, budget, nil); err != nil || !bytes.Equal(part.synced, blob) {
			t.Fatal(err)
		}
		h.wait.Wait()
		if h.alone == 0 {
			t.Error("it stayed")
		}
	})
}

// A stick that is put in later is asked as soon as the network disappoints.
func TestAStickThatIsPutInLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(30 * wire.ChunkSize)
		stick := &reader{blob: blob}
		began := time.Now()
		stick.fail = func(int) error {
			if time.Since(began) < 10*time.Second {
				return ErrAbsent
			}
			return nil
		}
		f, _ := mixed(blob, Config{Near: []Reader{stick}}, func(int) (time.Duration, bool) { return 0, false })
		if err := f.Fetch(t.Context(), wire.NewBlobRef(blob), &memPart{}, nil, nil); err != nil || time.Since(began) > 30*time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}
