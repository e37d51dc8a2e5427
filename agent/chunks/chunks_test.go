package chunks

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/fetch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	_ fetch.Repairer = (*Source)(nil)
	_ fetch.Settler  = (*Source)(nil)
)

// session records what is done with it, in order.
type session struct {
	mu       sync.Mutex
	did      []string
	gets     []wire.Get
	handlers map[string]link.Handler
	fail     error         // of the next call
	left     chan struct{} // cap 10: an unsubscribe
}

func (s *session) note(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fail; err != nil {
		s.fail = nil
		return err
	}
	s.did = append(s.did, what)
	return nil
}

func (s *session) Subscribe(_ context.Context, filter string, qos byte, h link.Handler) error {
	if err := s.note(fmt.Sprint("+", filter, " ", qos)); err != nil {
		return err
	}
	s.mu.Lock()
	s.handlers[filter] = h
	s.mu.Unlock()
	return nil
}

func (s *session) Unsubscribe(_ context.Context, filter string) error {
	err := s.note("-" + filter)
	s.left <- struct{}{}
	return err
}

func (s *session) Publish(_ context.Context, topic string, payload []byte, _ byte, retained bool) error {
	if err := s.note("get"); err != nil {
		return err
	}
	var g wire.Get
	if err := wire.Decode(payload, wire.MaxMessage, &g); err != nil || retained || topic != topics().Device("cam-1", wire.LeafGet) {
		return fmt.Errorf("%s, retained %v: %w", topic, retained, err)
	}
	s.gets = append(s.gets, g)
	return nil
}

// bring delivers a message as the broker would.
func (s *session) bring(filter, topic string, payload []byte) {
	if h := s.handlers[filter]; h != nil {
		h(topic, payload)
	}
}

func topics() wire.Topics { return wire.Topics{Fleet: "farm"} }

func setup() (*Source, *session, *[]string) {
	s := &session{handlers: map[string]link.Handler{}, left: make(chan struct{}, 10)}
	var got []string
	return New(Config{
		Fleet: "farm", Device: "cam-1", Link: s, Logger: slog.New(slog.DiscardHandler),
		Header:  func() wire.Header { return wire.Header{V: wire.Version, Boot: "b", Seq: 1} },
		Deliver: func(d string, c int, b []byte) { got = append(got, fmt.Sprintf("%.2s %d %s", d, c, b)) },
	}), s, &got
}

func blobs() (a, b string) { return strings.Repeat("a", 64), strings.Repeat("b", 64) }

func (s *session) want(t *testing.T, did ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Equal(s.did, did) {
		t.Errorf("did\n%s\nwanted\n%s", strings.Join(s.did, "\n"), strings.Join(did, "\n"))
	}
	s.did = nil
}

// It listens before it asks, and once.
func TestItListensFirst(t *testing.T) {
	a, b := blobs()
	src, s, got := setup()
	own, allA, allB := topics().Repairs("cam-1"), topics().BlobAll(a), topics().BlobAll(b)
	for range 2 {
		if err := src.Request(t.Context(), a, 3, []byte{5}); err != nil {
			t.Fatal(err)
		}
	}
	s.want(t, "+"+own+" 0", "+"+allA+" 0", "get", "get")
	if g := s.gets[0]; g.Blob != a || g.First != 3 || !slices.Equal(g.Want, []byte{5}) || g.Again || g.Alone || g.Boot != "b" {
		t.Errorf("%+v", g)
	}
	s.bring(allA, topics().BlobChunk(a, 3), []byte("x"))
	s.bring(allA, topics().BlobChunk(b, 3), []byte("of another"))
	s.bring(allA, "drover/v1/farm/blob/"+a+"/x", []byte("no number"))
	s.bring(own, topics().Repair("cam-1", 4), wire.Repair(b, []byte("y")))
	s.bring(own, topics().Repair("cam-1", 4), []byte("short"))
	s.bring(own, topics().Device("cam-1", wire.LeafGet), wire.Repair(b, []byte("z")))
	if want := []string{"aa 3 x", "bb 4 y"}; !slices.Equal(*got, want) {
		t.Errorf("delivered %q", *got)
	}
	src.Done(a)
	if err := src.Request(t.Context(), b, 0, []byte{1}); err != nil {
		t.Fatal(err)
	}
	s.want(t, "+"+allB+" 0", "get")
}

func TestRepairs(t *testing.T) {
	a, _ := blobs()
	src, s, _ := setup()
	own, all := topics().Repairs("cam-1"), topics().BlobAll(a)
	for _, alone := range []bool{false, true, true} {
		if err := src.Repair(t.Context(), a, 0, []byte{1}, alone); err != nil {
			t.Fatal(err)
		}
	}
	s.want(t, "+"+own+" 0", "+"+all+" 0", "get", "-"+all, "get", "get")
	for i, g := range s.gets {
		if alone := i > 0; g.Alone != alone || g.Again == alone {
			t.Errorf("%d: %+v", i, g)
		}
	}
}

// Whatever fails, the next request does it again.
func TestASessionThatFails(t *testing.T) {
	a, _ := blobs()
	own, all := topics().Repairs("cam-1"), topics().BlobAll(a)
	down := errors.New("not connected")
	for i := range 3 { // the session fails at its first, second, third call
		src, s, _ := setup()
		src.own = i > 0
		if i > 1 {
			src.listening = a
		}
		ask := func() error { return src.Request(t.Context(), a, 0, []byte{1}) }
		s.fail = down
		if err := ask(); !errors.Is(err, down) {
			t.Errorf("step %d: %v", i, err)
		}
		s.want(t)
		if err := ask(); err != nil {
			t.Errorf("step %d, again: %v", i, err)
		}
		s.want(t, []string{"+" + own + " 0", "+" + all + " 0", "get"}[i:]...)
	}
	src, s, _ := setup()
	src.own, src.listening, s.fail = true, a, down
	if err := src.Repair(t.Context(), a, 0, []byte{1}, true); !errors.Is(err, down) || src.listening != a {
		t.Errorf("it forgets that it still listens: %v", err)
	}
}

func TestSettleChangesNothing(t *testing.T) {
	a, _ := blobs()
	src, s, got := setup()
	if err := src.Request(t.Context(), a, 0, []byte{1}); err != nil {
		t.Fatal(err)
	}
	s.did = nil
	if err := src.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.want(t, "-"+topics().BlobAll(nothing))
	s.bring(topics().BlobAll(a), topics().BlobChunk(a, 0), []byte("x"))
	if len(*got) != 1 {
		t.Error("it listens no more")
	}
	s.fail = errors.New("not connected")
	if err := src.Settle(t.Context()); err == nil {
		t.Error("no error without a session")
	}
}

// What is done is unsubscribed from, unless it is wanted again meanwhile.
func TestDone(t *testing.T) {
	a, b := blobs()
	src, s, _ := setup()
	for _, d := range []string{a, b} {
		if err := src.Request(t.Context(), d, 0, []byte{1}); err != nil {
			t.Fatal(err)
		}
		src.Done(d)
		src.Done(d)
	}
	if err := src.Request(t.Context(), a, 0, []byte{1}); err != nil { // again
		t.Fatal(err)
	}
	s.did = nil
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- src.Run(ctx) }()
	<-s.left
	s.want(t, "-"+topics().BlobAll(b))
	src.Done(a)
	<-s.left
	s.want(t, "-"+topics().BlobAll(a))
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for range 100 { // nobody tidies up: it does not block
		if err := src.Request(t.Context(), a, 0, []byte{1}); err != nil {
			t.Fatal(err)
		}
		src.Done(a)
	}
}
