package vision

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
)

// cameraUnit keeps one camera alive. Its fields are owned by Run's goroutine,
// except camera, which never changes.
type cameraUnit struct {
	camera Camera
	stop   context.CancelFunc

	state    CameraView
	source   uint32 // id of the present ring in results; 0: no ring
	child    *cameraChild
	readers  map[*modelUnit]reader
	lastSeen time.Time // when Stats last showed a new frame
	latest   latest
}

// reader is one model's interest in a ring.
type reader struct {
	id    uint32
	event *os.File
}

func (v *Vision) startCamera(c Camera) *cameraUnit {
	u := &cameraUnit{camera: c, readers: map[*modelUnit]reader{}}
	u.state = CameraView{Name: c.Name, State: StateStarting, Source: redacted(c.Config.Source)}
	u.stop = v.spawn(func(ctx context.Context) { v.runCamera(ctx, u) })
	return u
}

func redacted(source string) string {
	s, err := camera.ParseSource(source)
	if err != nil {
		return ""
	}
	return s.Redacted()
}

// runCamera is the unit's goroutine: one child after the other.
func (v *Vision) runCamera(ctx context.Context, u *cameraUnit) {
	wait := newBackoff()
	for ctx.Err() == nil {
		began := time.Now()
		err := v.oneCamera(ctx, u)
		if ctx.Err() != nil {
			return
		}
		delay := wait.delay(time.Since(began))
		v.post(func() {
			u.state.State = StateFailed
			u.state.Error = err.Error()
			u.state.Restarts++
			v.event(wire.EventCamera, "", fmt.Sprintf("camera %q: %v; next try in %v", u.camera.Name, err, delay.Round(time.Millisecond)))
		})
		sleep(ctx, delay)
	}
}

// oneCamera runs one child from start to end and says why it ended.
func (v *Vision) oneCamera(ctx context.Context, u *cameraUnit) error {
	child, err := startCameraChild(ctx, &v.cfg, u.camera)
	if err != nil {
		return err
	}
	defer child.close()
	stop := context.AfterFunc(ctx, func() { child.conn.Close() })
	defer stop()
	v.post(func() { v.ringUp(u, child) })
	defer v.post(func() { v.ringDown(u) })
	var fault error
	err = child.serve(u.camera.Config.WithDefaults().OpenTimeout, func(msg any) {
		v.post(func() {
			if f := v.cameraSaid(u, msg); f != nil {
				fault = f
			}
		})
	})
	if fault != nil {
		return fault
	}
	return child.explain(err)
}

// cameraSaid takes one message of a camera child; it returns the fault with
// which the child is about to end.
func (v *Vision) cameraSaid(u *cameraUnit, msg any) error {
	switch m := msg.(type) {
	case *ipc.Opened:
		u.state.State, u.state.Error = StateRunning, ""
		u.state.Width, u.state.Height, u.state.Backend = m.Width, m.Height, m.Backend
		u.lastSeen = time.Now()
		v.event(wire.EventCamera, "", fmt.Sprintf("camera %q is open: %d×%d by %s", u.camera.Name, m.Width, m.Height, m.Backend))
	case *ipc.Stats:
		if m.LastSeq > u.state.LastSeq || m.Frames > u.state.Frames {
			u.lastSeen = time.Now()
			if u.state.State == StateStalled {
				u.state.State, u.state.Error = StateRunning, ""
			}
		}
		u.state.Frames, u.state.LastSeq, u.state.FPS = m.Frames, m.LastSeq, m.FPS
		if m.Width > 0 {
			u.state.Width, u.state.Height = m.Width, m.Height
		}
	case *ipc.Fault:
		err := &camera.Fault{Kind: m.Kind, Err: errors.New(m.Message)}
		u.state.Error = err.Error()
		if m.Kind == camera.FaultStalled {
			u.state.State = StateStalled
			v.event(wire.EventCamera, "", fmt.Sprintf("camera %q: %v", u.camera.Name, err))
			return nil
		}
		return err
	}
	return nil
}

// ringUp makes a camera child's ring known and attaches it to whoever answers.
func (v *Vision) ringUp(u *cameraUnit, child *cameraChild) {
	u.child = child
	u.source = v.nextID()
	u.state.Unenforced = child.sealed.Gaps
	u.state.State = StateStarting
	u.state.Frames, u.state.LastSeq = 0, 0
	v.sourcesMu.Lock()
	v.sources[u.source] = u
	v.sourcesMu.Unlock()
	for _, m := range []*modelUnit{v.active, v.warming} {
		v.attach(m, u)
	}
}

func (v *Vision) ringDown(u *cameraUnit) {
	for m := range u.readers {
		v.detach(m, u)
	}
	v.sourcesMu.Lock()
	delete(v.sources, u.source)
	v.sourcesMu.Unlock()
	u.child, u.source = nil, 0
	u.state.FPS = 0
}

// attach connects a ring to a model's child; nothing happens where one of the
// two is down: it is attached when it comes up.
func (v *Vision) attach(m *modelUnit, u *cameraUnit) {
	if m == nil || m.child == nil || u.child == nil {
		return
	}
	if _, ok := u.readers[m]; ok {
		return
	}
	event, err := camera.NewEvent()
	if err != nil {
		v.cfg.Logger.Error("attach camera", "camera", u.camera.Name, "error", err)
		return
	}
	r := reader{id: v.nextID(), event: event}
	err = m.child.Attach(u.source, u.child.ring, event, time.Duration(v.staleNs.Load()))
	if err == nil {
		err = u.child.addReader(r.id, event)
	}
	if err != nil {
		// One of the two is dying; its end is handled when it is seen.
		v.cfg.Logger.Warn("attach camera", "camera", u.camera.Name, "error", err)
		event.Close()
		return
	}
	u.readers[m] = r
}

func (v *Vision) detach(m *modelUnit, u *cameraUnit) {
	r, ok := u.readers[m]
	if !ok {
		return
	}
	delete(u.readers, m)
	if m.child != nil {
		_ = m.child.Detach(u.source)
	}
	if u.child != nil {
		_ = u.child.removeReader(r.id)
	}
	r.event.Close()
}

func (v *Vision) attachAll(m *modelUnit) {
	for _, u := range v.cameras {
		v.attach(m, u)
	}
}

func (v *Vision) detachAll(m *modelUnit) {
	for _, u := range v.cameras {
		v.detach(m, u)
	}
}

// Preview returns the newest picture of a camera as JPEG, at most width pixels
// wide.
func (v *Vision) Preview(ctx context.Context, name string, width, quality int) (Preview, error) {
	var child *cameraChild
	known := false
	if err := v.call(ctx, func() {
		if u := v.cameras[name]; u != nil {
			known, child = true, u.child
		}
	}); err != nil {
		return Preview{}, err
	}
	switch {
	case !known:
		return Preview{}, fmt.Errorf("%w: %q", ErrNoCamera, name)
	case child == nil:
		return Preview{}, fmt.Errorf("vision: camera %q is not running", name)
	}
	return child.preview(ctx, width, quality)
}
