// Package agent is the device: it composes camera, model, updates, link and
// status page, and owns what they share. It is pure Go; native code runs in the
// children that agent/vision starts.
//
// A device that is not a member of a fleet yet already shows its cameras on the
// status page and waits for an enrolment token. A member whose broker is away
// does everything but talk. Whatever is wrong is told in State, on the page and
// in the log; nothing of it ends the daemon, except what makes a start
// impossible at all.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/agent/config"
	"github.com/droverhq/drover/agent/inbox"
	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/monitor"
	"github.com/droverhq/drover/agent/outbox"
	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/vision"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/store"
	"github.com/droverhq/drover/ota/trust"
)

// Options is what the program around the agent decides.
type Options struct {
	Path      string // of the configuration file
	Version   string // of droverd
	BuildTime time.Time
	Level     *slog.LevelVar // follows log.level
	Logger    *slog.Logger
	Reload    <-chan struct{} // asks for a reload (SIGHUP)
}

// ErrLocked says that another daemon uses the same state folder.
var ErrLocked = errors.New("agent: state folder is in use by another droverd")

// Agent is one device. Run runs it; there is no other way to use it.
type Agent struct {
	opts    Options
	cfg     config.Config
	log     *slog.Logger
	boot    string
	started time.Time

	store   *store.Store
	anchor  *epochWatch
	vision  *vision.Vision
	monitor *monitor.Monitor
	outbox  *outbox.Outbox
	seq     atomic.Uint64
	history history

	// set once the device is a member
	member atomic.Pointer[member]

	mu        sync.Mutex // guards what follows
	linkState link.State
	problem   string // why the last edit of the configuration was not taken
	telemetry time.Duration
	labels    map[string]string // never written, only exchanged
	nudge     chan struct{}     // cap 1: something worth a new State happened
}

// member is what exists only in a fleet.
type member struct {
	fleet   string
	broker  string
	trust   *trust.Client
	updater *ota.Updater
	link    *link.Link
	inbox   *inbox.Inbox // nil: nothing comes by hand
	asker   *asker
}

// Run runs the device until ctx ends. Errors are those that make a start
// impossible: a bad configuration, an unusable state folder, a taken port.
func Run(ctx context.Context, opts Options) error {
	cfg, err := config.Load(opts.Path)
	if err != nil {
		return err
	}
	a := &Agent{
		opts: opts, cfg: cfg, log: opts.Logger, boot: rand.Text(), started: time.Now(),
		telemetry: cfg.Telemetry.Every, labels: cfg.Labels, nudge: make(chan struct{}, 1),
	}
	a.setLevel(cfg.Log.Level)
	unlock, err := lock(cfg.State)
	if err != nil {
		return err
	}
	defer unlock()
	if err := a.open(ctx); err != nil {
		return err
	}
	defer a.outbox.Close()
	defer a.anchor.Close()
	return a.run(ctx)
}

// lock makes the state folder and takes it for this process.
func lock(dir string) (func(), error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("agent: state folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("agent: state folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
	}
	return func() { f.Close() }, nil
}

// open opens everything durable.
func (a *Agent) open(ctx context.Context) error {
	dir, err := store.OpenDir(filepath.Join(a.cfg.State, "ota"))
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if a.store, err = store.Open(dir); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if a.anchor, err = openAnchor(ctx, a.cfg, a.log); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if a.outbox, err = outbox.Open(filepath.Join(a.cfg.State, "outbox"), outbox.Config{Log: a.log}); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	programs, err := findPrograms(a.cfg.Children.Programs)
	if err != nil {
		return err
	}
	a.monitor = monitor.New(time.Now)
	a.vision = vision.New(vision.Config{
		Programs: programs, UID: a.cfg.Children.UID, GID: a.cfg.Children.GID, StaleAfter: a.cfg.Model.StaleAfter,
		Logger: a.log,
		OnEvent: func(e vision.Event) {
			a.event(wire.Event{Kind: e.Kind, Release: e.Release, Message: e.Message})
		},
		OnResult: func(r *vision.Result) { a.monitor.Add(r.Camera, r.Release, len(r.Scores), r.Age, r.Top) },
	})
	return nil
}

// run starts the parts and waits for them.
func (a *Agent) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if a.cfg.Status.Listen != "off" {
		page, err := statuspage.Listen(statuspage.Config{Addr: a.cfg.Status.Listen, Source: a, Logger: a.log})
		if err != nil {
			return fmt.Errorf("agent: status page: %w", err)
		}
		a.log.Info("status page", "url", page.URL())
		g.Go(func() error { return page.Run(ctx) })
	}
	g.Go(func() error { return a.vision.Run(ctx) })
	if err := a.vision.SetCameras(ctx, cameras(a.cfg.Cameras)); err != nil && ctx.Err() == nil {
		return err
	}
	g.Go(func() error { return a.watchConfig(ctx) })
	g.Go(func() error { return a.fleet(ctx) })
	g.Go(func() error { return a.report(ctx) })
	g.Go(func() error { return a.heartbeat(ctx) })
	g.Go(func() error { return a.anchor.run(ctx, a.changed) })
	a.event(wire.Event{Kind: wire.EventStart, Message: fmt.Sprintf("droverd %s on %s", a.opts.Version, runtime.GOARCH)})
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func cameras(list []config.Camera) []vision.Camera {
	out := make([]vision.Camera, len(list))
	for i, c := range list {
		out[i] = vision.Camera{Name: c.Name, Config: c.Settings()}
	}
	return out
}

func (a *Agent) setLevel(name string) {
	var l slog.Level
	if l.UnmarshalText([]byte(name)) == nil && a.opts.Level != nil {
		a.opts.Level.Set(l)
	}
}
