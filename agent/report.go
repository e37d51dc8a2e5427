package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/droverhq/drover/agent/monitor"
	"github.com/droverhq/drover/agent/vision"
	"github.com/droverhq/drover/agent/wire"
)

const (
	stateSoonest = 500 * time.Millisecond // between two States
	stateLatest  = 30 * time.Second       // a State even when nothing changed
)

// report publishes State when it changes and telemetry at its interval.
func (a *Agent) report(ctx context.Context) error {
	soon := time.NewTicker(stateSoonest)
	defer soon.Stop()
	a.mu.Lock()
	every := a.telemetry
	a.mu.Unlock()
	nextTelemetry := time.Now().Add(every)
	var last []byte
	var lastAt time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.nudge:
		case <-soon.C:
		}
		m := a.member.Load()
		if m == nil {
			continue
		}
		now := time.Now()
		topics := wire.Topics{Fleet: m.fleet}
		s := a.state()
		if key := gist(s); string(key) != string(last) || now.Sub(lastAt) >= stateLatest {
			last, lastAt = key, now
			s.Header = a.header()
			a.outbox.Latest(topics.Device(a.cfg.Device, wire.LeafState), wire.Encode(s))
		}
		if now.After(nextTelemetry) {
			a.mu.Lock()
			every = a.telemetry
			a.mu.Unlock()
			nextTelemetry = now.Add(every)
			for _, t := range a.monitor.Flush(a.totals()) {
				t.Header = a.header()
				a.put(topics.Device(a.cfg.Device, wire.LeafTelemetry), wire.Encode(t))
			}
		}
	}
}

// gist is a State without what changes all the time.
func gist(s wire.State) []byte {
	s.Header = wire.Header{}
	s.Model.FPS, s.Model.InvokeP50, s.Model.InvokeP99 = 0, 0, 0
	s.Update.Done = s.Update.Done >> 20 // a State per MiB fetched
	cams := make([]wire.CameraState, len(s.Cameras))
	for i, c := range s.Cameras {
		c.FPS = 0
		cams[i] = c
	}
	s.Cameras = cams
	b, err := json.Marshal(s)
	if err != nil {
		panic("internal error: agent: " + err.Error())
	}
	return b
}

func (a *Agent) totals() map[string]monitor.Totals {
	out := map[string]monitor.Totals{}
	for _, c := range a.vision.View().Cameras {
		out[c.Name] = monitor.Totals{Dropped: c.Dropped, Stale: c.Stale}
	}
	return out
}

// state is the twin, without header.
func (a *Agent) state() wire.State {
	view := a.vision.View()
	s := wire.State{
		Agent: a.opts.Version, Arch: runtime.GOARCH,
		Update: wire.UpdateStatus{State: wire.Idle}, Assurance: a.anchor.Assurance(), Freshness: "stale", Cameras: []wire.CameraState{},
	}
	a.mu.Lock()
	s.Config, s.Labels = a.problem, a.labels
	a.mu.Unlock()
	if m := a.member.Load(); m != nil {
		s.Active, s.Previous, s.Candidate = m.updater.Releases()
		s.Update = m.updater.Status()
		if s.Update.State == "" {
			s.Update.State = wire.Idle
		}
		t := m.trust.Status()
		s.Freshness, s.Root = t.Freshness(), t.Versions[wire.RoleRoot]
	}
	epoch, err := a.anchor.last()
	s.Epoch = epoch
	if err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	for _, c := range view.Cameras {
		s.Cameras = append(s.Cameras, cameraState(c))
		if c.State != vision.StateRunning {
			s.Problems = append(s.Problems, cameraProblem(c))
		}
	}
	s.Model = modelState(view.Model)
	if view.Model.State == vision.StateFailed {
		s.Problems = append(s.Problems, "the model's child does not run: "+view.Model.Error)
	}
	if err := a.outbox.Problem(); err != nil {
		s.Problems = append(s.Problems, err.Error())
	}
	s.Healthy = len(s.Problems) == 0
	return s
}

func cameraProblem(c vision.CameraView) string {
	if c.Error == "" {
		return fmt.Sprintf("camera %s is %s", c.Name, c.State)
	}
	return fmt.Sprintf("camera %s is %s: %s", c.Name, c.State, c.Error)
}

func cameraState(c vision.CameraView) wire.CameraState {
	return wire.CameraState{Name: c.Name, State: c.State, FPS: c.FPS, Width: c.Width, Height: c.Height, Restarts: c.Restarts, Error: c.Error}
}

func modelState(m vision.ModelView) wire.ModelState {
	return wire.ModelState{
		State: m.State, Delegate: m.Delegate, Fallback: m.Fallback, Restarts: m.Restarts, FPS: m.FPS,
		InvokeP50: m.P50.Microseconds(), InvokeP99: m.P99.Microseconds(), Unenforced: m.Unenforced, Error: m.Error,
	}
}

// heartbeat tells systemd that the daemon is up, and goes on telling it as
// long as the loop that owns the children answers.
func (a *Agent) heartbeat(ctx context.Context) error {
	notify := func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			a.log.Debug("sd_notify", "error", err)
		}
	}
	notify(daemon.SdNotifyReady)
	defer notify(daemon.SdNotifyStopping)
	every, err := daemon.SdWatchdogEnabled(false)
	if err != nil || every <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if a.vision.Alive(ctx, every/3) {
				notify(daemon.SdNotifyWatchdog)
			}
		}
	}
}
