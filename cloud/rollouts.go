package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
)

// ErrBusy says that another rollout is under way.
var ErrBusy = errors.New("cloud: another rollout is under way")

// ErrEnded says that a rollout has ended already.
var ErrEnded = errors.New("cloud: the rollout has ended")

// RolloutOptions describe a new rollout.
type RolloutOptions struct {
	ID        string         // empty: made of model and version
	Release   string         // path
	Waves     []rollout.Wave // empty: everybody at once
	Frames    int            // of the probation; default 30
	Seconds   int            // of the probation, at most; default 300
	MaxFailed float64        // default 0.1
	Deadline  time.Duration  // default 7 days
}

// StartRollout begins to give a release to devices. The running hub signs the
// plan and publishes it. ErrBusy while another rollout runs.
func (f *Fleet) StartRollout(ctx context.Context, o RolloutOptions) (registry.Rollout, error) {
	rel, err := f.Registry.Release(ctx, o.Release)
	if err != nil {
		return registry.Rollout{}, err
	}
	if rel.State != registry.ReleaseActive {
		return registry.Rollout{}, fmt.Errorf("cloud: release %s is %s", rel.Path, rel.State)
	}
	all, err := f.Registry.Rollouts(ctx)
	if err != nil {
		return registry.Rollout{}, err
	}
	serial := int64(1)
	for _, ro := range all {
		if ro.State == string(rollout.Running) {
			return registry.Rollout{}, fmt.Errorf("%w: %s (%s)", ErrBusy, ro.ID, ro.Release)
		}
		if s, err := decodeRollout(ro); err == nil {
			serial = max(serial, s.Plan.Serial+1)
		}
	}
	p := rollout.Plan{
		ID: o.ID, Serial: serial, Release: rel.Path, Waves: o.Waves, Frames: orDefault(o.Frames, 30), Seconds: orDefault(o.Seconds, 300),
		MaxFailed: orDefault(o.MaxFailed, 0.1), Deadline: time.Now().Add(orDefault(o.Deadline, 7*24*time.Hour)),
	}
	if p.ID == "" {
		p.ID = fmt.Sprintf("%s-%d-r%d", rel.Model, rel.Version, serial)
	}
	if len(p.Waves) == 0 {
		p.Waves = []rollout.Wave{{Selector: wire.Selector{Threshold: wire.Whole}}}
	}
	if err := p.Check(); err != nil {
		return registry.Rollout{}, err
	}
	body, err := json.Marshal(stored{Plan: p, Progress: rollout.Progress{State: rollout.Running}})
	if err != nil {
		return registry.Rollout{}, fmt.Errorf("cloud: rollout: %w", err)
	}
	return f.Registry.AddRollout(ctx, registry.Rollout{ID: p.ID, Release: p.Release, Plan: body, State: string(rollout.Running)})
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// AbortRollout ends a rollout by hand: its plan is taken back.
func (f *Fleet) AbortRollout(ctx context.Context, id, reason string) (registry.Rollout, error) {
	return f.Registry.UpdateRollout(ctx, id, func(ro *registry.Rollout) error {
		s, err := decodeRollout(*ro)
		if err != nil {
			return err
		}
		if !s.Progress.State.Open() {
			return fmt.Errorf("%w: %s is %s", ErrEnded, id, s.Progress.State)
		}
		s.Progress.State, s.Progress.Reason = rollout.Aborted, reason
		return s.store(ro)
	})
}

func (s *stored) store(ro *registry.Rollout) error {
	body, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("cloud: rollout %s: %w", ro.ID, err)
	}
	ro.Plan, ro.State, ro.Reason = body, string(s.Progress.State), s.Progress.Reason
	return nil
}

// RolloutStatus is a rollout with what is known of its devices.
type RolloutStatus struct {
	registry.Rollout
	Progress rollout.Progress `json:"progress"`
}

// Rollouts lists all rollouts, newest first.
func (f *Fleet) Rollouts(ctx context.Context) ([]RolloutStatus, error) {
	all, err := f.Registry.Rollouts(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]RolloutStatus, 0, len(all))
	for _, ro := range all {
		s, err := decodeRollout(ro)
		if err != nil {
			return nil, err
		}
		out = append(out, RolloutStatus{ro, s.Progress})
	}
	return out, nil
}

const (
	decideEvery = 500 * time.Millisecond
	unreachable = 2 * time.Minute // offline for so long
)

// decide looks after the running rollouts until ctx ends.
func (h *Hub) decide(ctx context.Context) error {
	tick := time.NewTicker(decideEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			err := h.decideOnce(ctx, time.Now())
			if ctx.Err() == nil {
				h.problem("rollouts", err)
			}
		}
	}
}

func (h *Hub) decideOnce(ctx context.Context, now time.Time) error {
	running, err := h.fleet.Registry.Rollouts(ctx, string(rollout.Running))
	if err != nil {
		return err
	}
	for _, ro := range running {
		s, err := decodeRollout(ro)
		if err != nil {
			return err
		}
		seen, err := observe(ctx, h.fleet.Registry, &s, now)
		if err != nil {
			return err
		}
		next := rollout.Decide(&s.Plan, s.Progress, seen, now)
		if same(next, s.Progress) {
			continue
		}
		if _, err := h.fleet.Registry.UpdateRollout(ctx, ro.ID, func(ro *registry.Rollout) error {
			if ro.State != string(rollout.Running) {
				return nil // aborted meanwhile
			}
			s.Progress = next
			return s.store(ro)
		}); err != nil {
			return err
		}
		if next.State != rollout.Running || next.Wave != s.Progress.Wave {
			h.log.Info("rollout", "id", ro.ID, "state", next.State, "wave", next.Wave, "reason", next.Reason)
		}
	}
	return nil
}

func same(a, b rollout.Progress) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// observe counts the devices of the open wave by what they last reported.
func observe(ctx context.Context, reg *registry.Registry, s *stored, now time.Time) (rollout.Observed, error) {
	devices, err := reg.Devices(ctx, registry.DeviceFilter{})
	if err != nil {
		return rollout.Observed{}, err
	}
	selector := s.Plan.Waves[s.Progress.Wave].Selector
	seen := rollout.Observed{Reasons: map[wire.Reason]int{}}
	for i := range devices {
		d := &devices[i]
		if d.Revoked() {
			continue
		}
		var st wire.State
		if len(d.State) > 0 {
			if err := json.Unmarshal(d.State, &st); err != nil {
				return seen, fmt.Errorf("cloud: state of %s in the registry: %w", d.ID, err)
			}
		}
		if !selector.Matches(d.ID, st.Labels) {
			continue
		}
		seen.Selected++
		switch {
		case st.Update.Plan == s.Plan.ID && (st.Update.Outcome == wire.Refused || st.Update.Outcome == wire.RolledBack):
			seen.Failed++
			seen.Reasons[st.Update.Reason]++
		case st.Active != nil && st.Active.Path == s.Plan.Release && st.Update.State == wire.Idle:
			seen.Committed++
		case !d.Online && now.Sub(d.LastSeen) > unreachable:
			seen.Unreachable++
		}
	}
	return seen, nil
}
