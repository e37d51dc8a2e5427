package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/blobserver"
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
	session   session
	broker    *broker.Broker // the session, where it is the embedded one; else nil
	enroll    net.Listener
	publisher *publisher
	renewals  *renewals
	shelf     *shelf
	chunks    *multicast.Server
	blobs     *blobserver.Server
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
	var err error
	if h.publisher, err = newPublisher(ctx, h); err != nil {
		return nil, err
	}
	if h.session, h.broker, err = openSession(f, h.publisher.restore, o.Logger); err != nil {
		return nil, err
	}
	if h.enroll, err = net.Listen("tcp", f.Settings.Enroll.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("cloud: enrolment: %w", err), h.closeBroker(ctx))
	}
	h.renewals = newRenewals(h)
	h.monitor = monitor.New(f.Registry, o.Logger, o.Observe)
	h.shelf = &shelf{reg: f.Registry}
	h.chunks = h.newChunks()
	h.blobs = h.newBlobs()
	return h, nil
}

// closeBroker gives the embedded broker's port back when the hub will not run.
func (h *Hub) closeBroker(ctx context.Context) error {
	if h.broker == nil {
		return nil
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	return h.broker.Run(ended)
}

// Run serves until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := h.listen(ctx); err != nil {
		return errors.Join(err, h.enroll.Close(), h.closeBroker(ctx))
	}
	g.Go(func() error { return h.session.Run(ctx) })
	g.Go(func() error { return h.publisher.run(ctx) })
	g.Go(func() error { return h.chunks.Run(ctx) })
	g.Go(func() error { return h.decide(ctx) })
	g.Go(func() error { return h.revocations(ctx) })
	g.Go(func() error { return h.serveEnrolment(ctx) })
	g.Go(func() error { return h.renewals.run(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// receiveRetry is the pause while the database cannot be written. Meanwhile the
// broker holds what devices send: nothing is acknowledged that was not stored.
const receiveRetry = time.Second

// receive takes one message of a device.
func (h *Hub) receive(ctx context.Context, topic string, payload []byte) {
	t, err := wire.ParseTopic(topic)
	if err != nil || t.Device == "" || t.Fleet != h.fleet.Settings.Fleet {
		h.log.Warn("message on an unknown topic", "topic", topic)
		return
	}
	if t.Leaf == wire.LeafGet {
		h.chunks.Request(t.Device, payload)
		return
	}
	switch t.Leaf {
	case wire.LeafRenew:
		h.renewals.answer(ctx, t.Device, payload)
		return
	case wire.LeafOnline:
		h.renewals.arrived(ctx, t.Device, payload)
	}
	for ctx.Err() == nil {
		err := h.monitor.Receive(ctx, t, payload)
		if ctx.Err() == nil {
			h.problem("reception", err)
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(receiveRetry):
		case <-ctx.Done():
		}
	}
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
	handler, config := h.web(identity.EnrollHandler(identity.EnrollConfig{
		Authority: f.Authority, Tokens: tokens{f.Registry}, Devices: members{f.Registry}, Broker: f.Settings.Broker.Public,
		Sources: []string{"https://" + f.Settings.Enroll.Public},
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
	}))
	server := &http.Server{
		Handler: handler, TLSConfig: config, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second,
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
