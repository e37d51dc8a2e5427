package cloud

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/broker"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/monitor"
	"github.com/droverhq/drover/cloud/multicast"
	"github.com/droverhq/drover/cloud/registry"
)

// Hub serves a fleet: broker (its own or an external one), enrolment,
// publication, chunks, rollouts and reception. All it knows is in the fleet
// folder; it may be stopped and started at any moment.
type Hub struct {
	fleet     *Fleet
	log       *slog.Logger
	broker    *broker.Broker // nil with an external one
	bus       *bus
	enroll    net.Listener
	publisher *publisher
	chunks    *multicast.Server
	monitor   *monitor.Monitor

	mu       sync.Mutex
	problems map[string]string
}

// HubOptions are what the program around a hub decides.
type HubOptions struct {
	Logger *slog.Logger
	// Observe is told every new event of a device; it must not block. May be
	// nil.
	Observe func(device string, e wire.Event)
}

// NewHub takes the ports; Run serves.
func NewHub(ctx context.Context, f *Fleet, o HubOptions) (*Hub, error) {
	h := &Hub{fleet: f, log: o.Logger, problems: map[string]string{}}
	address := f.Settings.External
	if address == "" {
		b, err := broker.New(broker.Config{
			Fleet: f.Settings.Fleet, Address: f.Settings.Broker.Listen, TLS: f.Authority.TLSConfig(),
			Revoked: f.Authority.Revoked, Log: o.Logger,
		})
		if err != nil {
			return nil, err
		}
		h.broker, address = b, loopback(b.Addr())
	}
	var err error
	if h.enroll, err = net.Listen("tcp", f.Settings.Enroll.Listen); err != nil {
		return nil, fmt.Errorf("cloud: enrolment: %w", err)
	}
	h.bus = newBus(ctx, f.Settings.Fleet, address, clientTLS(f, address), []wire.Leaf{
		wire.LeafOnline, wire.LeafState, wire.LeafEvent, wire.LeafTelemetry, wire.LeafGet,
	}, o.Logger)
	if h.publisher, err = newPublisher(h); err != nil {
		return nil, errors.Join(err, h.enroll.Close())
	}
	h.monitor = monitor.New(f.Registry, o.Logger, o.Observe)
	topics := wire.Topics{Fleet: f.Settings.Fleet}
	h.chunks = multicast.New(multicast.Config{
		Size: h.served, Read: f.Registry.ReadBlobAt, Logger: o.Logger,
		Publish: func(ctx context.Context, digest string, chunk int, data []byte) error {
			return h.bus.publish(ctx, topics.BlobChunk(digest, chunk), data, 0, false)
		},
	})
	return h, nil
}

// clientTLS is how the hub meets a broker: by its own certificate, and only one
// whose certificate leads to the fleet's root.
func clientTLS(f *Fleet, address string) *tls.Config {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: f.Authority.Pool(), ServerName: host,
		Certificates: []tls.Certificate{f.Authority.HubCertificate()},
	}
}

// loopback makes a listening address one that can be dialled here.
func loopback(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Run serves until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if h.broker != nil {
		g.Go(func() error { return h.broker.Run(ctx) })
	}
	g.Go(func() error { return h.bus.run(ctx) })
	g.Go(func() error { return h.publisher.run(ctx) })
	g.Go(func() error { return h.chunks.Run(ctx) })
	g.Go(func() error { return h.receive(ctx) })
	g.Go(func() error { return h.decide(ctx) })
	g.Go(func() error { return h.revocations(ctx) })
	g.Go(func() error { return h.serveEnrolment(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// receive takes what devices send.
func (h *Hub) receive(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-h.bus.in:
			t, err := wire.ParseTopic(m.topic)
			if err != nil || t.Device == "" || t.Fleet != h.fleet.Settings.Fleet {
				h.log.Warn("message on an unknown topic", "topic", m.topic)
				continue
			}
			if t.Leaf == wire.LeafGet {
				h.chunks.Request(t.Device, m.payload)
				continue
			}
			err = h.monitor.Receive(ctx, t, m.payload)
			if ctx.Err() == nil {
				h.problem("reception", err)
			}
		}
	}
}

// served says how large a blob is, if a signed release names it: nothing else
// leaves the registry this way.
func (h *Hub) served(ctx context.Context, digest string) (int64, error) {
	b, err := h.fleet.Registry.Blob(ctx, digest)
	if err != nil {
		return 0, err
	}
	named, err := h.fleet.releaseNames(ctx, digest)
	if err != nil {
		return 0, err
	}
	if !named {
		return 0, fmt.Errorf("cloud: no release names blob %s", digest)
	}
	return b.Size, nil
}

// releaseNames says whether any release is made of this blob.
func (f *Fleet) releaseNames(ctx context.Context, digest string) (bool, error) {
	rels, err := f.Registry.Releases(ctx, "")
	if err != nil {
		return false, err
	}
	for _, rel := range rels {
		if rel.Manifest == digest {
			return true, nil
		}
		raw, err := f.Registry.ReadBlob(ctx, rel.Manifest, wire.MaxManifest)
		if err != nil {
			return false, err
		}
		m, err := wire.DecodeManifest(raw)
		if err != nil {
			return false, err
		}
		for i := range m.Variants {
			if m.Variants[i].Model.Digest == digest || m.Variants[i].Golden.Digest == digest {
				return true, nil
			}
		}
	}
	return false, nil
}

const revokeEvery = 2 * time.Second

// revocations ends the sessions of devices that another process revoked.
func (h *Hub) revocations(ctx context.Context) error {
	if h.broker == nil {
		return nil
	}
	tick := time.NewTicker(revokeEvery)
	defer tick.Stop()
	var seen int64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			n, err := h.fleet.Registry.ChangeCounter(ctx, registry.AreaDevices)
			if err != nil || n == seen {
				continue
			}
			seen = n
			h.broker.CheckRevoked()
		}
	}
}

func (h *Hub) serveEnrolment(ctx context.Context) error {
	f := h.fleet
	server := &http.Server{
		Handler: identity.EnrollHandler(identity.EnrollConfig{
			Authority: f.Authority, Tokens: tokens{f.Registry}, Devices: members{f.Registry}, Broker: f.Settings.Broker.Public,
			Root: func(ctx context.Context) ([]byte, error) {
				raw, _, err := f.Repo().Latest(ctx, wire.RoleRoot)
				return raw, err
			},
			Replaced: func(string) {
				if h.broker != nil {
					h.broker.CheckRevoked()
				}
			},
			Log: h.log,
		}),
		TLSConfig: f.Authority.HTTPSConfig(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.ServeTLS(h.enroll, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cloud: enrolment: %w", err)
	}
	return nil
}

// problem notes what does not work, and says so once; nil heals it.
func (h *Hub) problem(part string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	h.mu.Lock()
	before := h.problems[part]
	h.problems[part] = text
	h.mu.Unlock()
	switch {
	case text == before:
	case text == "":
		h.log.Info("recovered", "part", part)
	default:
		h.log.Error("problem", "part", part, "error", text)
	}
}

// Stats is what the hub has done since it started.
type Stats struct {
	Reports monitor.Stats   `json:"reports"`
	Chunks  multicast.Stats `json:"chunks"`
}

// Stats returns the counters.
func (h *Hub) Stats() Stats { return Stats{h.monitor.Stats(), h.chunks.Stats()} }
