package multicast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// shelf is a blob store in memory that records what was published.
type shelf struct {
	mu    sync.Mutex
	blobs map[string][]byte
	sent  []string // digest/chunk, in order
}

func (s *shelf) server(burst float64) *Server {
	return New(Config{
		Size: func(_ context.Context, d string) (int64, error) {
			if b, ok := s.blobs[d]; ok {
				return int64(len(b)), nil
			}
			return 0, errors.New("no release names it")
		},
		Read: func(_ context.Context, d string, p []byte, off int64) (int, error) {
			return copy(p, s.blobs[d][off:]), nil
		},
		Publish: func(_ context.Context, d string, c int, data []byte) error {
			ref := wire.NewBlobRef(s.blobs[d])
			if !ref.CheckChunk(c, data) {
				return errors.New("wrong bytes")
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sent = append(s.sent, fmt.Sprintf("%.4s/%d", d, c))
			return nil
		},
		Logger: slog.New(slog.DiscardHandler), Burst: burst,
	})
}

func get(digest string, first int, bits ...byte) []byte {
	return wire.Encode(wire.Get{Header: wire.Header{V: wire.Version, Boot: "b", Seq: 1}, Blob: digest, First: first, Want: bits})
}

func newShelf(size int) (*shelf, string) {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i * 7)
	}
	d := wire.NewBlobRef(b).Digest
	return &shelf{blobs: map[string][]byte{d: b}}, d
}

// run serves in a bubble of its own clock until do returns.
func run(t *testing.T, s *Server, do func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	do()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestManyDevicesOneCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf, d := newShelf(3*wire.ChunkSize + 10)
		s := shelf.server(0)
		run(t, s, func() {
			for i := range 1000 {
				s.Request(fmt.Sprintf("d%d", i), get(d, 0, 0b1111))
			}
			time.Sleep(time.Second / 2)
			synctest.Wait()
		})
		want := []string{d[:4] + "/0", d[:4] + "/1", d[:4] + "/2", d[:4] + "/3"}
		if !slices.Equal(shelf.sent, want) {
			t.Fatalf("sent %v", shelf.sent)
		}
		if st := s.Stats(); st.Coalesced != 3996 || st.Chunks != 4 || st.Bytes != 3*wire.ChunkSize+10 {
			t.Fatalf("%+v", st)
		}
	})
}

func TestRepairsAreSentAgainAfterTheCooldown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf, d := newShelf(100)
		s := shelf.server(0)
		run(t, s, func() {
			for _, pause := range []time.Duration{200 * time.Millisecond, 2 * time.Second, time.Second} {
				s.Request("a", get(d, 0, 1))
				time.Sleep(pause)
			}
			synctest.Wait()
		})
		if len(shelf.sent) != 2 { // the second came within the cooldown
			t.Fatalf("sent %v", shelf.sent)
		}
	})
}

func TestRogue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf, d := newShelf(100 * wire.ChunkSize)
		other, d2 := newShelf(5)
		shelf.blobs[d2] = other.blobs[d2]
		s := shelf.server(10)
		run(t, s, func() {
			s.Request("rogue", get(d, 0, 0xff, 0xff, 0xff))                        // 24 wanted, 10 paid for
			s.Request("rogue", get(d2, 0, 1))                                      // bucket empty
			s.Request("good", get(d2, 0, 1))                                       // its own bucket
			s.Request("rogue", []byte("{"))                                        // no message
			s.Request("rogue", get("../../etc/passwd", 0, 1))                      // no digest
			s.Request("rogue", get(d, -1, 1))                                      // no chunk
			s.Request("rogue", get(d, 0, make([]byte, 17)...))                     // too many
			s.Request("good", get(wire.NewBlobRef([]byte("secret")).Digest, 0, 1)) // not of a release
			s.Request("good", get(d2, 3, 1))                                       // beyond the end
			time.Sleep(time.Second)
			synctest.Wait()
		})
		if len(shelf.sent) != 11 || !slices.Contains(shelf.sent, d2[:4]+"/0") {
			t.Fatalf("sent %v", shelf.sent)
		}
		if st := s.Stats(); st.Throttled != 15 || st.Refused != 6 {
			t.Fatalf("%+v", st)
		}
	})
}

func FuzzRequest(f *testing.F) {
	shelf, d := newShelf(100)
	f.Add(get(d, 0, 1))
	f.Add([]byte(`{"v":1,"sha256":"","first":-5,"want":"AAA="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := shelf.server(0)
		s.Request("a", b)
		for _, batch := range s.take() {
			if !wire.ValidDigest(batch.digest) || len(batch.chunks) > wire.MaxWant*8 || batch.chunks[0] < 0 {
				t.Fatalf("%+v", batch)
			}
		}
	})
}
