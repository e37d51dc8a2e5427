// Package vision decides which child processes run on a device and connects
// them: one drover-camera per camera, one drover-infer per model. It restarts
// what dies with backoff, kills what hangs, exchanges the model under running
// cameras without leaving a frame unanswered, and knows at any moment what is
// seen by what.
//
// A camera child writes frames into a ring in shared memory; each ring is
// attached to the model that answers. A ring lives as long as its child: a
// restarted camera gets a new one, which is attached anew. During a swap the
// rings are attached to both models, and results count from the moment the
// serving pointer moves.
//
// All structure (rings, units, who serves) is owned by the goroutine of Run;
// everybody else hands it closures. Results do not pass through it: they are
// handled on the reader goroutine of the model's child.
package vision

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
)

// Camera is one entry of the configuration's cameras.
type Camera struct {
	Name   string
	Config camera.Config
}

// Model is one verified release, ready to be run.
type Model struct {
	Release wire.ReleaseRef
	Spec    infer.Spec
	Runtime protocol.Runtime
	// Read returns the verified bytes of the model. It is called at every
	// start of a child, so that nothing large is kept here.
	Read func() ([]byte, error)
}

// Event is something worth telling the operator.
type Event struct {
	Kind    wire.EventKind
	Release string
	Message string
}

// Config is what a Vision needs. OnEvent and OnResult must not block; OnResult
// is called on one goroutine per model and its argument is valid only during
// the call.
type Config struct {
	Programs   Programs
	UID, GID   int           // of children; 0 lets infer/cage choose
	StaleAfter time.Duration // a frame older than this when its turn comes counts as stale, is not answered
	FrameBytes int           // largest frame a ring holds; 0 means DefaultFrameBytes
	Logger     *slog.Logger
	OnEvent    func(Event)
	OnResult   func(*Result)
}

// Programs are the paths of the child programs.
type Programs struct {
	Camera string
	Infer  string
}

// Defaults of Config.
const (
	DefaultStaleAfter = time.Second
	DefaultFrameBytes = 8 << 20 // 1080p in BGR fits
	ringSlots         = 4
	// childMemory bounds what a model's child may allocate: several times what
	// the largest classifier takes, and less than would starve the device.
	childMemory = 1 << 30
	// probePatience bounds one request during a probe. It is long: a large
	// model's first answer on a small device takes seconds.
	probePatience = time.Minute
)

// ErrStopped is returned by calls after Run has ended.
var ErrStopped = errors.New("vision: stopped")

// ErrNoModel is returned where a model is needed and none was activated.
var ErrNoModel = errors.New("vision: no model is active")

// ErrNoCamera is wrapped where a camera is named that is not configured.
var ErrNoCamera = errors.New("vision: no such camera")

// Vision runs the children. Its methods may be called from any goroutine while
// Run runs.
type Vision struct {
	cfg      Config
	patience time.Duration // of a probe with one request

	// in
	do      chan func()
	stopped chan struct{}
	units   sync.WaitGroup // every unit's goroutine

	// owned by Run's goroutine
	// spawn starts a unit that ends with Run or when the returned function is
	// called; Run sets it.
	spawn     func(func(context.Context)) context.CancelFunc
	cameras   map[string]*cameraUnit
	active    *modelUnit
	warming   *modelUnit // during Activate
	previous  *modelUnit // kept warm until Commit
	lastID    uint32     // sources and readers
	lastTick  time.Time
	serving   atomic.Pointer[modelUnit] // whose results count
	staleNs   atomic.Int64
	sourcesMu sync.RWMutex
	sources   map[uint32]*cameraUnit

	view atomic.Pointer[View]
}

// New makes a Vision; Run brings it to life.
func New(cfg Config) *Vision {
	if cfg.StaleAfter <= 0 {
		cfg.StaleAfter = DefaultStaleAfter
	}
	if cfg.FrameBytes <= 0 {
		cfg.FrameBytes = DefaultFrameBytes
	}
	if cfg.OnEvent == nil {
		cfg.OnEvent = func(Event) {}
	}
	if cfg.OnResult == nil {
		cfg.OnResult = func(*Result) {}
	}
	v := &Vision{
		cfg:      cfg,
		patience: probePatience,
		do:       make(chan func()),
		stopped:  make(chan struct{}),
		cameras:  map[string]*cameraUnit{},
		sources:  map[uint32]*cameraUnit{},
	}
	v.staleNs.Store(int64(cfg.StaleAfter))
	v.view.Store(&View{})
	return v
}

const tick = 250 * time.Millisecond

// Run supervises until ctx ends, then stops all children and waits for them.
func (v *Vision) Run(ctx context.Context) error {
	unitCtx, cancel := context.WithCancel(ctx)
	v.spawn = func(run func(context.Context)) context.CancelFunc {
		ctx, cancel := context.WithCancel(unitCtx)
		v.units.Go(func() { run(ctx) })
		return cancel
	}
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			cancel()
			v.drain()
			return nil
		case f := <-v.do:
			f()
		case now := <-ticker.C:
			v.watch(now)
		}
		v.publishView()
	}
}

// drain lets the units end: they may still hand over closures while they do.
func (v *Vision) drain() {
	ended := make(chan struct{})
	go func() { v.units.Wait(); close(ended) }()
	for {
		select {
		case f := <-v.do:
			f()
		case <-ended:
			close(v.stopped)
			return
		}
	}
}

// call runs f on Run's goroutine and waits for it.
func (v *Vision) call(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case v.do <- func() { defer close(done); f() }:
		<-done
		return nil
	case <-v.stopped:
		return ErrStopped
	case <-ctx.Done():
		return ctx.Err()
	}
}

// post hands f over from a unit's goroutine; Run takes it until the last unit
// has ended.
func (v *Vision) post(f func()) {
	done := make(chan struct{})
	v.do <- func() { defer close(done); f() }
	<-done
}

// SetCameras starts, stops and restarts cameras so that exactly these run. A
// camera whose settings did not change goes on undisturbed.
func (v *Vision) SetCameras(ctx context.Context, want []Camera) error {
	return v.call(ctx, func() {
		keep := map[string]bool{}
		for _, c := range want {
			keep[c.Name] = true
			if old := v.cameras[c.Name]; old != nil {
				if old.camera == c {
					continue
				}
				old.stop()
			}
			v.cameras[c.Name] = v.startCamera(c)
		}
		for name, unit := range v.cameras {
			if !keep[name] {
				unit.stop()
				delete(v.cameras, name)
			}
		}
	})
}

// SetStaleAfter changes the age at which a frame is not answered any more.
func (v *Vision) SetStaleAfter(ctx context.Context, d time.Duration) error {
	if d <= 0 || v.staleNs.Swap(int64(d)) == int64(d) {
		return nil
	}
	// The children know the age since the rings were attached.
	return v.call(ctx, func() {
		for _, m := range []*modelUnit{v.active, v.warming} {
			if m != nil {
				v.detachAll(m)
				v.attachAll(m)
			}
		}
	})
}

func (v *Vision) nextID() uint32 {
	v.lastID++
	return v.lastID
}

func (v *Vision) event(kind wire.EventKind, release, message string) {
	v.cfg.OnEvent(Event{Kind: kind, Release: release, Message: message})
}

// Alive says whether Run's goroutine answers within d.
func (v *Vision) Alive(ctx context.Context, d time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return v.call(ctx, func() {}) == nil
}
