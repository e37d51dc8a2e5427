package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/vision"
)

const previewQuality = 80

// Snapshot implements statuspage.Source.
func (a *Agent) Snapshot() statuspage.Snapshot {
	view := a.vision.View()
	s := statuspage.Snapshot{Now: time.Now(), Started: a.started, Device: a.cfg.Device, State: a.state(), History: a.history.newest()}
	a.mu.Lock()
	s.Connected = a.linkState.Connected
	if a.linkState.Err != nil {
		s.LinkError = a.linkState.Err.Error()
	}
	a.mu.Unlock()
	s.Model = statuspage.Model{
		ModelState: s.State.Model, Release: view.Model.Release, Labels: view.Model.Labels,
		Results: view.Model.Results, Errors: view.Model.Errors,
	}
	if m := a.member.Load(); m != nil {
		s.Fleet, s.Broker = m.fleet, m.broker
		f := m.updater.FetchStats()
		s.Fetch = statuspage.Fetch{Good: f.Good, Corrupt: f.Corrupt, Bytes: f.Bytes}
		if c, ok := m.updater.Active(); ok && c.Release.Path == view.Model.Release {
			s.Model.Digest, s.Model.Size, s.Model.Variant = c.Variant.Model.Digest, c.Variant.Model.Size, c.Variant.Name
		}
	}
	for _, c := range view.Cameras {
		s.Cameras = append(s.Cameras, statuspage.Camera{
			CameraState: cameraState(c), Source: c.Source, Backend: c.Backend, Frames: c.Frames,
			Results: c.Results, Stale: c.Stale, Dropped: c.Dropped, HasResult: c.HasResult, Release: c.Release, Seq: c.Seq,
			AgeMicros: c.Age.Microseconds(), SinceMicros: c.Since.Microseconds(), Top: c.Top, Unenforced: c.Unenforced,
		})
	}
	o := a.outbox.Stats()
	s.Outbox = statuspage.Outbox{Waiting: o.Waiting, Dropped: o.Dropped}
	if err := a.outbox.Problem(); err != nil {
		s.Outbox.Problem = err.Error()
	}
	return s
}

// Preview implements statuspage.Source.
func (a *Agent) Preview(ctx context.Context, camera string, width int) ([]byte, error) {
	p, err := a.vision.Preview(ctx, camera, width, previewQuality)
	if errors.Is(err, vision.ErrNoCamera) {
		err = fmt.Errorf("%w: %w", statuspage.ErrNoCamera, err)
	}
	return p.JPEG, err
}
