package broker_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/broker"
	"github.com/droverhq/drover/test/brokertest"
)

const patience = 20 * time.Second

// session is what a hub uses, whatever the broker.
type session interface {
	Publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error
	Subscribe(ctx context.Context, filter string, qos byte, handle func(topic string, payload []byte)) error
}

func remote(t *testing.T, f *brokertest.Fleet, addr string, up func(context.Context)) *broker.Remote {
	t.Helper()
	r, err := broker.NewRemote(broker.RemoteConfig{
		Address: addr, Fleet: brokertest.FleetName, Certificate: f.Authority.HubCertificate(), CA: f.Authority.Pool(), OnUp: up, Log: brokertest.Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("Run does not return")
		}
	})
	return r
}

func wait(t *testing.T, what string, c <-chan string) string {
	t.Helper()
	select {
	case s := <-c:
		return s
	case <-time.After(patience):
		t.Fatalf("%s does not come", what)
		return ""
	}
}

// hubSession starts a broker and the hub's session with it.
func hubSession(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) session {
	t.Helper()
	srv.Start(t)
	if e, ok := srv.(*brokertest.EmbeddedServer); ok {
		return e.Broker
	}
	up := make(chan string, 1)
	r := remote(t, f, srv.Addr(), func(context.Context) { up <- "" })
	wait(t, "the session", up)
	return r
}

func device(t *testing.T, f *brokertest.Fleet, addr, name string) *brokertest.Client {
	t.Helper()
	cert := f.Device(t, name)
	c, err := brokertest.Dial(addr, f, &cert, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

// The hub answers every message in its handler, during a burst.
func TestHubSession(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		h := hubSession(t, f, srv)
		if err := h.Publish(t.Context(), topics.TrustCurrent(), []byte("retained"), 1, true); err != nil {
			t.Fatal(err)
		}
		const n = 600
		failed := make(chan error, n)
		err := h.Subscribe(t.Context(), topics.Devices(wire.LeafEvent), 1, func(topic string, p []byte) {
			if topic != topics.Device(self, wire.LeafEvent) {
				failed <- fmt.Errorf("topic %s", topic)
			}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := h.Publish(ctx, topics.Device(self, wire.LeafCommand), append([]byte("re "), p...), 1, false); err != nil {
				failed <- err
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		c := device(t, f, srv.Addr(), self)
		for _, filter := range []string{topics.TrustAll(), topics.Device(self, wire.LeafCommand)} {
			if ok, err := c.Subscribe(filter); !ok || err != nil {
				t.Fatal(ok, err)
			}
		}
		if _, err := c.Wait([]byte("retained")); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if err := c.Publish(topics.Device(self, wire.LeafEvent), fmt.Appendf(nil, "%d", i), 1, false); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			if _, err := c.Wait(fmt.Appendf(nil, "re %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case err := <-failed:
			t.Fatal(err)
		default:
		}
		for _, topic := range []string{"drover/v1/other/trust/current", "$SYS/x", "a", topics.TrustAll()} {
			if err := h.Publish(t.Context(), topic, nil, 1, false); !errors.Is(err, broker.ErrDenied) {
				t.Errorf("hub publishes on %q: %v", topic, err)
			}
		}
		if err := h.Publish(t.Context(), topics.TrustCurrent(), make([]byte, wire.MaxMessage+1), 1, false); !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("oversize: %v", err)
		}
	})
}

// What a device says while the broker lives and the hub does not is not lost,
// and a broker that forgot everything is told anew.
func TestRemoteReturns(t *testing.T) {
	f := brokertest.NewFleet(t)
	srv := brokertest.Mosquitto(t, f, brokertest.FreeAddr(t))
	up, got := make(chan string, 10), make(chan string, 10)
	var r *broker.Remote
	made := make(chan struct{})
	r = remote(t, f, srv.Addr(), func(ctx context.Context) {
		<-made
		if err := r.Publish(ctx, topics.TrustCurrent(), []byte("again"), 1, true); err != nil {
			t.Error(err)
		}
		up <- ""
	})
	close(made)
	if err := r.Publish(t.Context(), topics.TrustCurrent(), nil, 1, true); !errors.Is(err, broker.ErrNotConnected) {
		t.Errorf("Publish without a session: %v", err)
	}
	if err := r.Subscribe(t.Context(), topics.Devices(wire.LeafEvent), 1, func(_ string, p []byte) { got <- string(p) }); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		srv.Start(t)
		wait(t, "the session", up)
		c := device(t, f, srv.Addr(), self)
		if ok, err := c.Subscribe(topics.TrustAll()); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, err := c.Wait([]byte("again")); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprint("event ", round)
		if err := c.Publish(topics.Device(self, wire.LeafEvent), []byte(want), 1, false); err != nil {
			t.Fatal(err)
		}
		if g := wait(t, want, got); g != want {
			t.Errorf("got %q", g)
		}
		srv.Stop(t)
	}
}

func TestDisconnectPublishesTheWill(t *testing.T) {
	f := brokertest.NewFleet(t)
	srv := brokertest.Embedded(t, f, brokertest.FreeAddr(t)).(*brokertest.EmbeddedServer)
	srv.Start(t)
	got := make(chan string, 10)
	if err := srv.Broker.Subscribe(t.Context(), topics.Devices(wire.LeafOnline), 1, func(_ string, p []byte) { got <- string(p) }); err != nil {
		t.Fatal(err)
	}
	cert := f.Device(t, self)
	will := &brokertest.Will{Topic: topics.Device(self, wire.LeafOnline), Retain: true}
	c, err := brokertest.Dial(srv.Addr(), f, &cert, self, will)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Kill()
	if !srv.Broker.Disconnect(self) || srv.Broker.Disconnect("cam-9") {
		t.Error("Disconnect says otherwise")
	}
	if c.Ping() == nil {
		t.Error("the session goes on")
	}
	wait(t, "the will", got)
}

// A device that does not read loses its session, not the broker its memory.
func TestSlowConsumer(t *testing.T) {
	f := brokertest.NewFleet(t)
	srv := brokertest.Embedded(t, f, brokertest.FreeAddr(t)).(*brokertest.EmbeddedServer)
	srv.Start(t)
	c := device(t, f, srv.Addr(), self)
	other := device(t, f, srv.Addr(), neighbour)
	for _, x := range []*brokertest.Client{c, other} {
		if ok, err := x.Subscribe(topics.TrustAll()); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	big := make([]byte, wire.MaxMessage)
	for i := 0; srv.Broker.Stats().Slow == 0; i++ {
		if i > 5000 {
			t.Fatal("nobody is found slow")
		}
		if err := srv.Broker.Publish(t.Context(), topics.TrustCurrent(), big, 1, true); err != nil {
			t.Fatal(err)
		}
		if _, err := other.Wait(big); err != nil {
			t.Fatalf("the one that reads suffers: %v", err)
		}
	}
	for c.Ping() == nil {
		t.Log("still reading what was in the socket")
	}
}

// Chunks of blobs are dropped for a device that does not read; its session goes
// on, for it asks again for what it still needs.
func TestChunksAreDropped(t *testing.T) {
	f := brokertest.NewFleet(t)
	srv := brokertest.Embedded(t, f, brokertest.FreeAddr(t)).(*brokertest.EmbeddedServer)
	srv.Start(t)
	c := device(t, f, srv.Addr(), self)
	if ok, err := c.Subscribe(topics.BlobAll(digest)); !ok || err != nil {
		t.Fatal(ok, err)
	}
	chunk := make([]byte, wire.ChunkSize)
	for i := 0; srv.Broker.Stats().Dropped == 0; i++ {
		if i > 20_000 {
			t.Fatal("nothing is dropped")
		}
		if err := srv.Broker.Publish(t.Context(), topics.BlobChunk(digest, i%100), chunk, 0, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := srv.Broker.Publish(t.Context(), topics.Device(self, wire.LeafCommand), nil, 1, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Ping(); err != nil {
		t.Errorf("the session has ended: %v", err)
	}
	if s := srv.Broker.Stats(); s.Slow != 0 || s.Denied != 0 {
		t.Errorf("%+v", s)
	}
}

// Whoever connects and says nothing is let go, in TLS and after it.
func TestSilentConnections(t *testing.T) {
	f := brokertest.NewFleet(t)
	b, err := broker.New(broker.Config{
		Fleet: brokertest.FleetName, Address: "127.0.0.1:0", TLS: f.Authority.TLSConfig(), Log: brokertest.Logger(t),
		Limits: broker.Limits{Handshake: 200 * time.Millisecond, Clients: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	plain, err := net.Dial("tcp", b.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = plain.Close() }()
	cert := f.Device(t, self)
	secure, err := tls.Dial("tcp", b.Addr(), &tls.Config{RootCAs: f.Authority.Pool(), ServerName: "localhost", Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = secure.Close() }()
	for _, c := range []net.Conn{plain, secure} {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		var ne net.Error
		if _, err := c.Read(make([]byte, 1)); err == nil || (errors.As(err, &ne) && ne.Timeout()) {
			t.Errorf("still open: %v", err)
		}
	}
	for i := range 2 {
		device(t, f, b.Addr(), fmt.Sprintf("cam-%d", i))
	}
	if _, err := brokertest.Dial(b.Addr(), f, &cert, self, nil); err == nil {
		t.Error("a third connection where two are allowed")
	}
}

func TestConfigIsChecked(t *testing.T) {
	f := brokertest.NewFleet(t)
	good := broker.Config{Fleet: "f", Address: "127.0.0.1:0", TLS: f.Authority.TLSConfig(), Log: brokertest.Logger(t)}
	for name, change := range map[string]func(*broker.Config){
		"fleet":                 func(c *broker.Config) { c.Fleet = "+" },
		"no TLS":                func(c *broker.Config) { c.TLS = nil },
		"no client certificate": func(c *broker.Config) { c.TLS = f.Authority.HTTPSConfig() },
		"old TLS":               func(c *broker.Config) { c.TLS = c.TLS.Clone(); c.TLS.MinVersion = tls.VersionTLS12 },
		"address":               func(c *broker.Config) { c.Address = "nowhere" },
	} {
		c := good
		change(&c)
		if _, err := broker.New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	files := broker.Files(f.Authority.Files())
	for name, o := range map[string]broker.MosquittoOptions{
		"line break": {Fleet: "f", Address: "h:1", Files: broker.Files{CA: "/a\nallow_anonymous true", Certificate: "/b", Key: "/c", CRL: "/d"}},
		"relative":   {Fleet: "f", Address: "h:1", Files: broker.Files{CA: "a", Certificate: "/b", Key: "/c", CRL: "/d"}},
		"fleet":      {Fleet: "f\ntopic #", Address: "h:1", Files: files},
		"address":    {Fleet: "f", Address: "h", Files: files},
		"host":       {Fleet: "f", Address: "h\nallow_anonymous true:1", Files: files},
		"port":       {Fleet: "f", Address: "h:1 x", Files: files},
	} {
		if _, err := broker.MosquittoConfig(t.TempDir(), o); err == nil {
			t.Errorf("mosquitto, %s: taken", name)
		}
	}
}
