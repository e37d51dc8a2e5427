package vision

import (
	"slices"
	"time"

	"github.com/droverhq/drover/infer"
)

// The states of a camera and of the model, as they stand in messages.
const (
	StateNone     = "none"
	StateStarting = "starting"
	StateRunning  = "running"
	StateStalled  = "stalled"
	StateFailed   = "failed"
)

// CameraView is one camera as it stands.
type CameraView struct {
	Name       string
	Source     string // without a password
	State      string
	Error      string
	Backend    string
	Width      int // pixels
	Height     int // pixels
	FPS        float64
	Frames     uint64 // captured since the child started
	LastSeq    uint64
	Restarts   int
	Unenforced []string // of the cage

	// the newest answer
	HasResult bool
	Release   string // that gave it
	Seq       uint64
	Age       time.Duration // when it was given
	Since     time.Duration // since then
	Top       []infer.Score
	Results   uint64
	Stale     uint64 // frames too old when their turn came
	Dropped   uint64 // frames without an answer between two that have one, stale ones included
}

// ModelView is the active model as it stands.
type ModelView struct {
	State      string
	Release    string
	Labels     []string
	Delegate   string
	Fallback   string
	Error      string
	Restarts   int
	Results    uint64
	Errors     uint64
	FPS        float64
	P50, P99   time.Duration
	Unenforced []string
	PID        int
}

// View is everything that can be seen at one moment. It is immutable.
type View struct {
	Cameras []CameraView
	Model   ModelView
	Warming string // release that is being activated
}

// View returns the present view. Answers are as fresh as the call; the rest is
// at most a quarter of a second old.
func (v *Vision) View() View {
	view := *v.view.Load()
	cams := make([]CameraView, len(view.Cameras))
	copy(cams, view.Cameras)
	view.Cameras = cams
	v.sourcesMu.RLock()
	defer v.sourcesMu.RUnlock()
	for i := range cams {
		for _, u := range v.sources {
			if u.camera.Name == cams[i].Name {
				u.latest.into(&cams[i])
			}
		}
	}
	return view
}

func (l *latest) into(c *CameraView) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c.Results, c.Stale, c.Dropped = l.results, l.stale, l.dropped
	if !l.ok {
		return
	}
	c.HasResult, c.Release, c.Seq, c.Age, c.Since = true, l.r.Release, l.r.Seq, l.r.Age, time.Since(l.at)
	c.Top = append([]infer.Score(nil), l.top...)
}

// publishView makes the view of Run's goroutine visible to all.
func (v *Vision) publishView() {
	view := &View{Model: ModelView{State: StateNone}}
	for _, name := range sortedNames(v.cameras) {
		u := v.cameras[name]
		c := u.state
		u.latest.into(&c)
		view.Cameras = append(view.Cameras, c)
	}
	if v.warming != nil {
		view.Warming = v.warming.model.Release.Path
	}
	if m := v.active; m != nil {
		view.Model = m.describe()
	}
	v.view.Store(view)
}

func (m *modelUnit) describe() ModelView {
	p50, p99 := m.tally.quantiles()
	out := ModelView{
		State: m.state, Release: m.model.Release.Path, Labels: m.model.Spec.Labels, Restarts: m.restarts,
		Delegate: string(m.loaded.Delegate), Fallback: m.loaded.Fallback, P50: p50, P99: p99, Unenforced: m.sealed.Gaps,
	}
	if m.err != nil {
		out.Error = m.err.Error()
	}
	if m.child != nil {
		out.PID = m.child.PID()
	}
	m.tally.mu.Lock()
	defer m.tally.mu.Unlock()
	out.Results, out.Errors, out.FPS = m.tally.results, m.tally.errors, m.tally.fps
	return out
}

func sortedNames(m map[string]*cameraUnit) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
