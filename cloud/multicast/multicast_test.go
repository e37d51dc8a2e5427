package multicast

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a blob store in memory that records what was sent.
type shelf struct {
	mu    sync.Mutex
	blobs map[string][]byte
	sent  []string // digest/chunk, in order; with the device in front for repairs
	at    []time.Time
	asked int // of Allowed
	fail  error
}

func (s *shelf) note(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return s.fail
	}
	s.sent = append(s.sent, fmt.Sprintf(format, args...))
	s.at = append(s.at, time.Now())
	return nil
}

func (s *shelf) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.sent)
}

func (s *shelf) server() *Server {
	check := func(d string, c int, data []byte) error {
		if !wire.NewBlobRef(s.blobs[d]).CheckChunk(c, data) {
			return errors.New("wrong bytes")
		}
		return nil
	}
	return New(Config{
		Allowed: func(_ context.Context, device, d string) (int64, error) {
			s.asked++
			if b, ok := s.blobs[d]; ok && device != "stranger" {
				return int64(len(b)), nil
			}
			return 0, errors.New("no plan gives it to this device")
		},
		Read: func(_ context.Context, d string, p []byte, off int64) (int, error) {
			return copy(p, s.blobs[d][off:]), nil
		},
		Publish: func(_ context.Context, d string, c int, data []byte) error {
			return errors.Join(check(d, c, data), s.note("%.4s/%d", d, c))
		},
		Repair: func(_ context.Context, device, d string, c int, data []byte) error {
			return errors.Join(check(d, c, data), s.note("%s:%.4s/%d", device, d, c))
		},
		Logger: slog.New(slog.DiscardHandler),
	})
}

func message(g wire.Get) []byte {
	g.Header = wire.Header{V: wire.Version, Boot: "b", Seq: 1}
	return wire.Encode(g)
}

func get(digest string, first int, bits ...byte) []byte {
	return message(wire.Get{Blob: digest, First: first, Want: bits})
}

func again(digest string, first int, bits ...byte) []byte {
	return message(wire.Get{Blob: digest, First: first, Want: bits, Again: true})
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
func run(t *testing.T, size int, do func(s *Server, shelf *shelf, d string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		shelf, d := newShelf(size)
		s := shelf.server()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		do(s, shelf, d)
	})
}

func rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestManyDevicesOneCopy(t *testing.T) {
	run(t, 3*wire.ChunkSize+10, func(s *Server, shelf *shelf, d string) {
		for i := range 1000 { // they do not come all at once
			s.Request(fmt.Sprintf("d%d", i), get(d, 0, 0b1111))
			time.Sleep(time.Millisecond)
		}
		rest(3 * time.Second)
		if want := []string{d[:4] + "/0", d[:4] + "/1", d[:4] + "/2", d[:4] + "/3"}; !slices.Equal(shelf.all(), want) {
			t.Fatalf("sent %v", shelf.all())
		}
		if st := s.Stats(); st.Coalesced != 3996 || st.Chunks != 4 || st.Bytes != 3*wire.ChunkSize+10 {
			t.Fatalf("%+v", st)
		}
	})
}

// Whoever listens asks for the next window while the last is on its way: it
// follows at once, and asking late for what was sent meanwhile costs nothing.
func TestWhileItFlowsNothingIsSentTwice(t *testing.T) {
	run(t, 40*wire.ChunkSize, func(s *Server, shelf *shelf, d string) {
		for _, dev := range []string{"fast", "slow", "slower"} {
			s.Request(dev, get(d, 0, 0xff, 0xff))
		}
		rest(60 * time.Millisecond)
		s.Request("fast", get(d, 16, 0xff, 0xff))
		rest(time.Millisecond)
		if n := len(shelf.all()); n != 32 {
			t.Fatalf("%d sent: the second window waits", n)
		}
		rest(5 * time.Second)
		s.Request("slow", get(d, 16, 0xff, 0xff)) // it still reads the first
		rest(time.Minute)
		s.Request("slower", get(d, 16, 0xff, 0xff))
		rest(time.Minute)
		if n := len(shelf.all()); n != 32 {
			t.Fatalf("%d sent", n)
		}
	})
}

// The only device that updates waits for nobody, whatever it asks for and
// however long it takes between its windows.
func TestALonelyDeviceIsAnsweredAtOnce(t *testing.T) {
	run(t, 64*wire.ChunkSize, func(s *Server, shelf *shelf, d string) {
		other, d2 := newShelf(5)
		shelf.blobs[d2] = other.blobs[d2]
		for i, q := range [][]byte{get(d2, 0, 1), get(d, 0, 0xff), get(d, 8, 0xff), get(d, 16, 0xff, 0xff), get(d, 32, 1)} {
			before := len(shelf.all())
			s.Request("a", q)
			rest(100 * time.Millisecond)
			if len(shelf.all()) == before {
				t.Errorf("request %d waits", i)
			}
			rest(time.Duration(i) * time.Minute)
		}
		for i := range 400 { // a crowd, at another time
			s.Request(fmt.Sprintf("d%d", i), get(d, 40, 1))
		}
		rest(time.Hour)
		before := len(shelf.all())
		s.Request("a", get(d, 0, 1))
		rest(100 * time.Millisecond)
		if len(shelf.all()) == before {
			t.Error("a device waits for a crowd that is gone")
		}
	})
}

func TestTheSecondSendingWaitsForAll(t *testing.T) {
	run(t, 20*wire.ChunkSize, func(s *Server, shelf *shelf, d string) {
		for i := range 200 {
			s.Request(fmt.Sprintf("d%d", i), get(d, 0, 0xff, 0xff))
		}
		rest(8 * time.Second)
		for i := range 200 { // each lost another chunk, each says so at another time
			s.Request(fmt.Sprintf("d%d", i), again(d, i%16, 1))
			time.Sleep(4 * time.Millisecond)
		}
		s.Request("late", get(d, 0, 0xff, 0xff))
		rest(10 * time.Second)
		if st := s.Stats(); st.Chunks != 32 || st.Second != 16 || st.Repairs != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

// One device that lost one chunk has it in no time, the first time and later.
func TestALonelyDeviceIsRepairedQuickly(t *testing.T) {
	run(t, 100, func(s *Server, shelf *shelf, d string) {
		s.Request("a", get(d, 0, 1))
		rest(700 * time.Millisecond)
		for i, want := range []string{d[:4] + "/0", "a:" + d[:4] + "/0", "a:" + d[:4] + "/0"} {
			s.Request("a", again(d, 0, 1))
			rest(150 * time.Millisecond)
			if got := shelf.all(); len(got) != i+2 || got[i+1] != want {
				t.Fatalf("sent %v", got)
			}
		}
	})
}

func TestTwiceAnHourOnTheSharedTopic(t *testing.T) {
	run(t, 10*wire.ChunkSize, func(s *Server, shelf *shelf, d string) {
		for i := range 60 { // one that was never there before, each minute
			s.Request(fmt.Sprintf("d%d", i), get(d, 0, 1))
			rest(time.Minute)
		}
		shared := func() (n int) {
			for _, x := range shelf.all() {
				if x == d[:4]+"/0" {
					n++
				}
			}
			return n
		}
		if n := shared(); n != 2 || len(shelf.all()) != 60 {
			t.Fatalf("%d of %d shared", n, len(shelf.all()))
		}
		rest(time.Minute)
		s.Request("later", get(d, 0, 1))
		rest(time.Minute)
		if n := shared(); n != 3 {
			t.Fatalf("%d shared after an hour", n)
		}
	})
}

func TestAloneIsNeverShared(t *testing.T) {
	run(t, 2*wire.ChunkSize, func(s *Server, shelf *shelf, d string) {
		s.Request("a", message(wire.Get{Blob: d, Want: []byte{3}, Alone: true}))
		s.Request("a", message(wire.Get{Blob: d, Want: []byte{3}, Alone: true})) // before they are sent
		rest(time.Second)
		if want := []string{"a:" + d[:4] + "/0", "a:" + d[:4] + "/1"}; !slices.Equal(shelf.all(), want) {
			t.Fatalf("sent %v", shelf.all())
		}
	})
}

func TestRogue(t *testing.T) {
	const chunks = 16
	run(t, chunks*wire.ChunkSize, func(s *Server, shelf *shelf, d string) {
		other, d2 := newShelf(5)
		shelf.blobs[d2] = other.blobs[d2]
		s.Request("rogue", []byte("{"))                                         // no message
		s.Request("rogue", get("../../etc/passwd", 0, 1))                       // no digest
		s.Request("rogue", get(d, -1, 1))                                       // no chunk
		s.Request("rogue", get(d, 0, make([]byte, 17)...))                      // too many
		s.Request("rogue", get(wire.NewBlobRef([]byte("secret")).Digest, 0, 1)) // not of a plan
		s.Request("stranger", get(d, 0, 1))                                     // of no plan of his
		s.Request("rogue", get(d, chunks, 1))                                   // beyond the end
		rest(time.Second)
		if st := s.Stats(); st.Refused != 7 || st.Chunks != 0 {
			t.Fatalf("%+v", st)
		}
		for range 1000 { // all of it, over and over
			s.Request("rogue", again(d, 0, 0xff, 0xff))
			s.Request("rogue", message(wire.Get{Blob: d, Want: []byte{0xff, 0xff}, Alone: true}))
			rest(50 * time.Millisecond)
		}
		st := s.Stats()
		if st.Chunks > 2*chunks+1 { // a minute's refill is part of a chunk
			t.Fatalf("a rogue had %d chunks of %d sent", st.Chunks, chunks)
		}
		s.Request("good", again(d, 0, 0xff, 0xff)) // its own bucket
		rest(2 * time.Second)
		if n := s.Stats().Chunks - st.Chunks; n != chunks {
			t.Fatalf("%d chunks for another device, wanted %d", n, chunks)
		}
		if shelf.asked > 200 {
			t.Errorf("asked %d times what is allowed", shelf.asked)
		}
	})
}

func TestOtherWaysArePaidFromTheSameBucket(t *testing.T) {
	shelf, d := newShelf(4 * wire.ChunkSize)
	s := shelf.server()
	if !s.Pay("a", d, 4*wire.ChunkSize, 8) || s.Pay("a", d, 4*wire.ChunkSize, 1) || !s.Pay("b", d, 4*wire.ChunkSize, 1) {
		t.Error("the bucket is not twice the blob, for each device")
	}
}

func TestABrokerThatIsAway(t *testing.T) {
	run(t, 3*wire.ChunkSize, func(s *Server, shelf *shelf, d string) {
		shelf.fail = errors.New("not connected")
		s.Request("a", get(d, 0, 7))
		rest(time.Minute)
		if st := s.Stats(); st.Chunks != 0 || st.Refused != 1 {
			t.Fatalf("%+v", st)
		}
		shelf.mu.Lock()
		shelf.fail = nil
		shelf.mu.Unlock()
		s.Request("a", again(d, 0, 7))
		rest(time.Second)
		if st := s.Stats(); st.Chunks != 3 || st.Second != 0 {
			t.Fatalf("%+v", st)
		}
	})
}

// Repairs of one device do not stop what all wait for, nor the other way round.
func TestTurns(t *testing.T) {
	now := time.Unix(1, 0)
	b := newBook(Times{Gather: 1, GatherMax: 1, Hold: 1, PerDevice: 1, HoldMax: 1})
	d := wire.NewBlobRef([]byte("x")).Digest
	for _, g := range []wire.Get{{Blob: d, Want: []byte{0xff}}, {Blob: d, First: 8, Want: []byte{0xff}, Alone: true}} {
		for _, dev := range []string{"a", "b"} {
			if _, err := b.take(dev, &g, 16*wire.ChunkSize, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	var order bytes.Buffer
	for {
		it, _ := b.next(now.Add(time.Second))
		if it == nil {
			break
		}
		order.WriteString(it.device + fmt.Sprint(it.chunk) + " ")
	}
	if want := "0 a8 1 b8 2 a9 3 b9 4 a10 5 b10 6 a11 7 b11 a12 b12 a13 b13 a14 b14 a15 b15 "; order.String() != want {
		t.Errorf("sent %s", order.String())
	}
}

func FuzzRequest(f *testing.F) {
	shelf, d := newShelf(100)
	f.Add(get(d, 0, 1))
	f.Add(again(d, 0, 1))
	f.Add([]byte(`{"v":1,"sha256":"","first":-5,"want":"AAA=","again":true}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := shelf.server()
		s.Request("a", b)
		for _, q := range s.inbox {
			if !wire.ValidDigest(q.get.Blob) || len(q.get.Want) > wire.MaxWant || q.get.First < 0 {
				t.Fatalf("%+v", q)
			}
		}
		s.read(t.Context())
		for range 300 {
			it, wait := s.book.next(time.Now().Add(time.Hour))
			if it == nil && wait == 0 {
				return
			}
			if it == nil || it.chunk != 0 || it.digest != d {
				t.Fatalf("%+v after %v", it, wait)
			}
		}
		t.Fatal("one request, and no end of it")
	})
}
