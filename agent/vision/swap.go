package vision

import (
	"context"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// overlap is how long both models may run side by side at most before the
// pointer moves, when a camera gives no frame for the new one to answer.
const overlap = 2 * time.Second

// Activate makes a model the one that answers. The new child loads, warms up
// and answers its first frames beside the old one before the pointer moves, so
// that no frame stays unanswered. The old model is kept warm for Return until
// Commit. On error the old model goes on as if nothing had happened.
func (v *Vision) Activate(ctx context.Context, m Model) error {
	var unit *modelUnit
	err := v.call(ctx, func() {
		if v.warming != nil {
			return
		}
		unit = v.startModel(m)
		v.warming = unit
	})
	if err != nil {
		return err
	}
	if unit == nil {
		return fmt.Errorf("vision: activate %s: another model is being activated", m.Release.Path)
	}
	if err := v.warm(ctx, unit); err != nil {
		unit.stop()
		_ = v.call(context.WithoutCancel(ctx), func() { v.warming = nil })
		return fmt.Errorf("vision: activate %s: %w", m.Release.Path, err)
	}
	return v.call(context.WithoutCancel(ctx), func() {
		old := v.active
		v.warming, v.active = nil, unit
		v.serving.Store(unit)
		if v.previous != nil && v.previous != old {
			v.previous.stop()
		}
		v.previous = old
		from := "nothing"
		if old != nil {
			v.detachAll(old)
			from = old.model.Release.Path
		}
		v.event(wire.EventSwap, m.Release.Path, "answers the frames now; before: "+from)
	})
}

// warm waits until the unit has loaded its model and answered a frame of every
// camera that runs.
func (v *Vision) warm(ctx context.Context, unit *modelUnit) error {
	select {
	case <-unit.ready:
	case <-unit.ended:
		var err error
		_ = v.call(ctx, func() { err = unit.err })
		if err == nil {
			err = ErrStopped
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	deadline := time.NewTimer(overlap)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		var running int
		if err := v.call(ctx, func() {
			for _, u := range v.cameras {
				if u.state.State == StateRunning {
					running++
				}
			}
		}); err != nil {
			return err
		}
		unit.tally.mu.Lock()
		answered := unit.tally.results
		unit.tally.mu.Unlock()
		if answered >= uint64(2*running) {
			return nil
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			return nil // the probe has shown that it answers; no frame came meanwhile
		case <-unit.ended:
			return ErrStopped
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Return makes the previous model answer again and gives up the active one.
func (v *Vision) Return(ctx context.Context) error {
	var err error
	if e := v.call(ctx, func() {
		if v.previous == nil {
			err = ErrNoModel
			return
		}
		bad := v.active
		v.active, v.previous = v.previous, nil
		v.attachAll(v.active)
		v.serving.Store(v.active)
		v.detachAll(bad)
		bad.stop()
		v.event(wire.EventSwap, v.active.model.Release.Path, "answers the frames again; given up: "+bad.model.Release.Path)
	}); e != nil {
		return e
	}
	return err
}

// Commit gives up the previous model, if one was kept.
func (v *Vision) Commit(ctx context.Context) error {
	return v.call(ctx, func() {
		if v.previous != nil {
			v.previous.stop()
			v.previous = nil
		}
	})
}

// Observation is what a release on probation is judged by.
type Observation struct {
	Release   string
	Results   uint64        // answers since activation
	Errors    uint64        // frames the runtime refused
	Restarts  int           // of the child since activation
	Hangs     int           // of those, because it stopped answering
	Classes   []uint64      // results per class
	P99       time.Duration // of the newest inferences, preprocessing included
	LastError string
}

// Observe returns the active model's observation.
func (v *Vision) Observe(ctx context.Context) (Observation, error) {
	var o Observation
	err := ErrNoModel
	if e := v.call(ctx, func() {
		m := v.active
		if m == nil {
			return
		}
		err = nil
		o = Observation{Release: m.model.Release.Path, Restarts: m.restarts, P99: m.tally.p99()}
		if m.err != nil {
			o.LastError = m.err.Error()
		}
		m.tally.mu.Lock()
		defer m.tally.mu.Unlock()
		o.Results, o.Errors, o.Hangs = m.tally.results, m.tally.errors, m.tally.hangs
		o.Classes = append(o.Classes, m.tally.classes...)
	}); e != nil {
		return o, e
	}
	return o, err
}

// Serving returns the release that answers and the one kept for Return; zero
// values where there is none.
func (v *Vision) Serving(ctx context.Context) (active, previous wire.ReleaseRef) {
	_ = v.call(ctx, func() {
		if v.active != nil {
			active = v.active.model.Release
		}
		if v.previous != nil {
			previous = v.previous.model.Release
		}
	})
	return active, previous
}

// Deactivate stops all models: nothing answers.
func (v *Vision) Deactivate(ctx context.Context) error {
	return v.call(ctx, func() {
		for _, m := range []*modelUnit{v.active, v.previous} {
			if m != nil {
				v.detachAll(m)
				m.stop()
			}
		}
		v.active, v.previous = nil, nil
		v.serving.Store(nil)
	})
}

// PreviousClasses counts what the model kept for Return answered, per class.
func (v *Vision) PreviousClasses(ctx context.Context) []uint64 {
	var out []uint64
	_ = v.call(ctx, func() {
		if m := v.previous; m != nil {
			m.tally.mu.Lock()
			defer m.tally.mu.Unlock()
			out = append(out, m.tally.classes...)
		}
	})
	return out
}
