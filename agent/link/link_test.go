package link_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/test/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	device   = "cam-1"
	patience = 20 * time.Second
)

var topics = wire.Topics{Fleet: brokertest.FleetName}

// rig is a link that runs.
type rig struct {
	*link.Link
	states chan link.State
	stop   func()
}

func start(t *testing.T, f *brokertest.Fleet, addr string, change func(*link.Config)) *rig {
	t.Helper()
	r := &rig{states: make(chan link.State, 1000)}
	c := link.Config{
		Broker: addr, Fleet: brokertest.FleetName, Device: device, Certificate: f.Device(t, device), CA: [][]byte{f.Authority.CA()},
		Boot: "boot-1", Agent: "test", Log: brokertest.Logger(t), MinBackoff: 10 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
		OnState: func(s link.State) { r.states <- s },
	}
	if change != nil {
		change(&c)
	}
	l, err := link.New(c)
	if err != nil {
		t.Fatal(err)
	}
	r.Link = l
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("Run: %v", err)
				}
			case <-time.After(patience):
				t.Error("Run does not return")
			}
		})
	}
	t.Cleanup(r.stop)
	return r
}

// until waits for a state.
func (r *rig) until(t *testing.T, what string, ok func(link.State) bool) {
	t.Helper()
	end := time.After(patience)
	var last link.State
	for {
		select {
		case last = <-r.states:
			if ok(last) {
				return
			}
		case <-end:
			t.Fatalf("waiting for %s; last state %+v", what, last)
		}
	}
}

func (r *rig) online(t *testing.T) {
	t.Helper()
	r.until(t, "a session", func(s link.State) bool { return s.Connected })
}

func hub(t *testing.T, f *brokertest.Fleet, addr string) *brokertest.Client {
	t.Helper()
	cert := f.Authority.HubCertificate()
	c, err := brokertest.Dial(addr, f, &cert, identity.HubName, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	if ok, err := c.Subscribe(wire.Prefix + brokertest.FleetName + "/d/#"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	return c
}

func onlinePayload(yes bool) []byte {
	b, err := json.Marshal(wire.Online{V: 1, Online: yes, Session: "boot-1", Agent: "test"})
	if err != nil {
		panic(err)
	}
	return b
}

func TestSessionTellsOnlineAndOffline(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		h := hub(t, f, srv.Addr())
		r := start(t, f, srv.Addr(), nil)
		r.online(t)
		if _, err := h.Wait(onlinePayload(true)); err != nil {
			t.Fatal(err)
		}
		r.stop()
		if _, err := h.Wait(onlinePayload(false)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWillWhenTheDeviceIsCutOff(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		h := hub(t, f, srv.Addr())
		p := newProxy(t, srv.Addr())
		r := start(t, f, p.addr(), nil)
		r.online(t)
		if _, err := h.Wait(onlinePayload(true)); err != nil {
			t.Fatal(err)
		}
		p.refuse()
		if _, err := h.Wait(onlinePayload(false)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBrokerDownAtStartAndRestarted(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		r := start(t, f, srv.Addr(), nil)
		got := make(chan string, 100)
		if err := r.Subscribe(t.Context(), topics.TrustAll(), 1, func(_ string, p []byte) { got <- string(p) }); err != nil {
			t.Fatal(err)
		}
		r.until(t, "a failure", func(s link.State) bool { return s.Err != nil })
		if err := r.Publish(t.Context(), topics.Device(device, wire.LeafEvent), nil, 1, false); !errors.Is(err, link.ErrNotConnected) {
			t.Errorf("Publish without a session: %v", err)
		}
		for round := range 3 {
			srv.Start(t)
			r.online(t)
			h := hub(t, f, srv.Addr())
			want := fmt.Sprintf("trust %d", round)
			if err := h.Publish(topics.TrustCurrent(), []byte(want), 1, true); err != nil {
				t.Fatal(err)
			}
			expect(t, got, want)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := r.Publish(ctx, topics.Device(device, wire.LeafEvent), []byte(want), 1, false); err != nil {
				t.Fatal(err)
			}
			cancel()
			if _, err := h.Wait([]byte(want)); err != nil {
				t.Fatal(err)
			}
			srv.Stop(t)
			r.until(t, "the loss", func(s link.State) bool { return !s.Connected })
		}
		if n := r.Stats().Sessions; n != 3 {
			t.Errorf("%d sessions, want 3", n)
		}
	})
}

func expect(t *testing.T, got <-chan string, want string) {
	t.Helper()
	select {
	case g := <-got:
		if g != want {
			t.Fatalf("got %q, want %q", g, want)
		}
	case <-time.After(patience):
		t.Fatalf("%q does not come", want)
	}
}

// A burst while the handler publishes and waits: in a callback of the MQTT
// client this would never end.
func TestBurstWhileHandlerPublishes(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		r := start(t, f, srv.Addr(), nil)
		const n = 100
		answered := make(chan error, n)
		err := r.Subscribe(t.Context(), topics.Device(device, wire.LeafCommand), 1, func(_ string, p []byte) {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			answered <- r.Publish(ctx, topics.Device(device, wire.LeafEvent), append([]byte("re "), p...), 1, false)
		})
		if err != nil {
			t.Fatal(err)
		}
		r.online(t)
		h := hub(t, f, srv.Addr())
		for i := range n {
			if err := h.Publish(topics.Device(device, wire.LeafCommand), fmt.Appendf(nil, "%d", i), 1, false); err != nil {
				t.Fatal(err)
			}
		}
		for i := range n {
			select {
			case err := <-answered:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatalf("only %d of %d answered", i, n)
			}
		}
		if _, err := h.Wait(fmt.Appendf(nil, "re %d", n-1)); err != nil {
			t.Fatal(err)
		}
	})
}

func TestDynamicSubscription(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		r := start(t, f, srv.Addr(), nil)
		r.online(t)
		h := hub(t, f, srv.Addr())
		digest := strings.Repeat("ab", 32)
		got := make(chan string, 10)
		note := func(topic string, _ []byte) { got <- topic }
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := r.Subscribe(ctx, topics.BlobAll(digest), 0, note); err != nil {
			t.Fatal(err)
		}
		if err := r.Subscribe(ctx, topics.TrustAll(), 1, note); err != nil {
			t.Fatal(err)
		}
		publish := func(topic string) {
			t.Helper()
			if err := h.Publish(topic, []byte("x"), 1, false); err != nil {
				t.Fatal(err)
			}
		}
		publish(topics.BlobChunk(digest, 7))
		expect(t, got, topics.BlobChunk(digest, 7))
		if err := r.Unsubscribe(ctx, topics.BlobAll(digest)); err != nil {
			t.Fatal(err)
		}
		publish(topics.BlobChunk(digest, 8))
		publish(topics.TrustCurrent())
		expect(t, got, topics.TrustCurrent())
	})
}

// The slow handler makes the queue of what must not be lost overflow; the
// newest retained message comes in the end all the same.
func TestOverflowBringsRetainedAgain(t *testing.T) {
	f := brokertest.NewFleet(t)
	srv := brokertest.Embedded(t, f, brokertest.FreeAddr(t))
	srv.Start(t)
	r := start(t, f, srv.Addr(), nil)
	gate, last := make(chan struct{}), make(chan struct{})
	var once sync.Once
	err := r.Subscribe(t.Context(), topics.TrustAll(), 1, func(_ string, p []byte) {
		<-gate
		if strings.HasPrefix(string(p), "last") {
			once.Do(func() { close(last) })
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	r.online(t)
	h := hub(t, f, srv.Addr())
	big := make([]byte, wire.MaxMessage)
	for r.Stats().Overflows == 0 {
		if err := h.Publish(topics.TrustCurrent(), big, 1, true); err != nil {
			t.Fatal(err)
		}
	}
	over := r.Stats().Overflows
	for r.Stats().Overflows == over {
		if err := h.Publish(topics.TrustCurrent(), append([]byte("last"), big[4:]...), 1, true); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	select {
	case <-last:
	case <-time.After(patience):
		t.Fatal("the newest message was lost")
	}
}

func TestCertificates(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		other := brokertest.NewFleet(t)
		for name, c := range map[string]struct {
			change func(*link.Config)
			want   error
		}{
			"another fleet's certificate": {func(c *link.Config) { c.Certificate = other.Device(t, device) }, link.ErrCertificateRefused},
			"self-signed certificate":     {func(c *link.Config) { c.Certificate = brokertest.SelfSigned(t, device) }, link.ErrCertificateRefused},
			"broker of another fleet":     {func(c *link.Config) { c.CA = [][]byte{other.Authority.CA()} }, link.ErrBrokerIdentity},
			"broker by another name": {func(c *link.Config) {
				c.Broker = strings.Replace(c.Broker, "127.0.0.1", "127.0.0.2", 1)
			}, link.ErrBrokerIdentity},
		} {
			t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
				addr := srv.Addr()
				if strings.Contains(name, "name") {
					addr = aliasOf(t, addr)
				}
				r := start(t, f, addr, c.change)
				r.until(t, c.want.Error(), func(s link.State) bool { return errors.Is(s.Err, c.want) })
			})
		}
	})
}

func TestRevokedCertificateEndsTheSession(t *testing.T) {
	f := brokertest.NewFleet(t)
	srv := brokertest.Embedded(t, f, brokertest.FreeAddr(t)).(*brokertest.EmbeddedServer)
	srv.Start(t)
	var cert tls.Certificate
	r := start(t, f, srv.Addr(), func(c *link.Config) { cert = c.Certificate })
	r.online(t)
	if err := f.Authority.Revoke(serial(t, cert)); err != nil {
		t.Fatal(err)
	}
	srv.Broker.CheckRevoked()
	r.until(t, "the refusal", func(s link.State) bool { return errors.Is(s.Err, link.ErrCertificateRefused) })
}

func TestClientIDOfAnother(t *testing.T) {
	f := brokertest.NewFleet(t)
	srv := brokertest.Embedded(t, f, brokertest.FreeAddr(t))
	srv.Start(t)
	r := start(t, f, srv.Addr(), func(c *link.Config) { c.Certificate = f.Device(t, "cam-2") })
	r.until(t, "the refusal", func(s link.State) bool { return errors.Is(s.Err, link.ErrRefused) })
}
