package vision

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
)

// modelUnit keeps one model's child alive.
type modelUnit struct {
	model Model
	stop  context.CancelFunc
	tally tally         // results; has its own lock
	ready chan struct{} // closed when the child has loaded the model for the first time
	ended chan struct{} // closed when the unit's goroutine ends

	// owned by Run's goroutine
	child    *host.Child
	loaded   protocol.Loaded
	sealed   protocol.Sealed
	state    string
	err      error
	restarts int
	upSince  time.Time
}

func (v *Vision) startModel(m Model) *modelUnit {
	u := &modelUnit{model: m, state: StateStarting, ready: make(chan struct{}), ended: make(chan struct{})}
	u.tally.reset(m.Spec.Contract.Classes())
	u.stop = v.spawn(func(ctx context.Context) {
		defer close(u.ended)
		v.runModel(ctx, u)
	})
	return u
}

func (v *Vision) hostOptions() host.Options {
	return host.Options{Program: v.cfg.Programs.Infer, Profile: profile, UID: v.cfg.UID, GID: v.cfg.GID, MemoryBytes: childMemory, Logger: v.cfg.Logger}
}

// startInfer starts a child and gives it the model.
func (v *Vision) startInfer(ctx context.Context, m Model) (*host.Child, protocol.Loaded, error) {
	bytes, err := m.Read()
	if err != nil {
		return nil, protocol.Loaded{}, fmt.Errorf("vision: read model %s: %w", m.Release.Path, err)
	}
	child, err := host.Start(ctx, v.hostOptions())
	if err != nil {
		return nil, protocol.Loaded{}, err
	}
	loaded, err := child.Load(ctx, bytes, &m.Spec, m.Runtime)
	if err != nil {
		_ = child.Close()
		return nil, protocol.Loaded{}, err
	}
	return child, loaded, nil
}

// runModel is the unit's goroutine: one child after the other. A model that is
// refused before it ever ran is given up, since trying again changes nothing.
func (v *Vision) runModel(ctx context.Context, u *modelUnit) {
	wait := newBackoff()
	ran := false
	for ctx.Err() == nil {
		began := time.Now()
		up, err := v.oneModel(ctx, u, !ran)
		ran = ran || up
		if ctx.Err() != nil {
			return
		}
		var refused *host.Refusal
		hopeless := !ran && errors.As(err, &refused)
		delay := wait.delay(time.Since(began))
		v.post(func() {
			u.state, u.err = StateFailed, err
			u.restarts++
			if !hopeless {
				v.event(wire.EventChild, u.model.Release.Path, fmt.Sprintf("model child: %v; next try in %v", err, delay.Round(time.Millisecond)))
			}
		})
		if hopeless {
			return
		}
		sleep(ctx, delay)
	}
}

// oneModel runs one child from start to end; up tells whether it came as far
// as answering.
func (v *Vision) oneModel(ctx context.Context, u *modelUnit, first bool) (up bool, err error) {
	child, loaded, err := v.startInfer(ctx, u.model)
	if err != nil {
		return false, err
	}
	defer child.Close()
	child.OnResult(func(r *protocol.Result) { v.result(u, r) })
	v.post(func() {
		u.child, u.loaded, u.sealed = child, loaded, child.Sealed()
		u.state, u.err, u.upSince = StateRunning, nil, time.Now()
		if v.active == u || v.warming == u {
			v.attachAll(u)
		}
		if first {
			// Starts that failed before are no crashes of what answers: a busy
			// device may take more than one.
			u.restarts = 0
			close(u.ready)
		} else {
			v.event(wire.EventChild, u.model.Release.Path, "model child is back")
		}
	})
	select {
	case <-child.Done():
		err = child.Err()
	case <-ctx.Done():
		err = ctx.Err()
	}
	v.post(func() {
		v.detachAll(u)
		u.child = nil
	})
	if err == nil {
		err = errors.New("vision: model child ended without a reason")
	}
	return true, err
}

// Bounds of the watchdog: a child is given ten times its own p99, and never
// less than a floor that a busy machine can reach.
const (
	hangFactor = 10
	hangFloor  = 500 * time.Millisecond
	statsLag   = 1500 * time.Millisecond // camera statistics come once a second
)

// watch kills a model's child that stopped answering although frames come, and
// counts rates.
func (v *Vision) watch(now time.Time) {
	if now.Sub(v.lastTick) >= time.Second {
		v.lastTick = now
		for _, m := range []*modelUnit{v.active, v.warming} {
			if m != nil {
				m.tally.second(now)
			}
		}
	}
	m := v.active
	if m == nil || m.child == nil {
		return
	}
	framesCome := false
	for _, u := range v.cameras {
		if _, attached := u.readers[m]; attached && u.state.State == StateRunning && u.state.LastSeq > 1 && now.Sub(u.lastSeen) < statsLag {
			framesCome = true
		}
	}
	patience := max(hangFactor*m.tally.p99(), hangFloor) + statsLag
	last := m.tally.lastResult()
	if last.Before(m.upSince) {
		last = m.upSince
	}
	if framesCome && now.Sub(last) > patience {
		m.tally.hang()
		m.child.Kill(fmt.Errorf("no result for %v although frames come", now.Sub(last).Round(time.Millisecond)))
		m.upSince = now // once is enough until it is seen to end
	}
}
