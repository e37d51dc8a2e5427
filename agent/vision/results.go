package vision

import (
	"slices"
	"sync"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
)

// Result is what the serving model said about one frame. Scores and Top are
// reused: an observer copies what it keeps.
type Result struct {
	Camera     string
	Release    string
	Seq        uint64
	CapturedAt time.Duration // CLOCK_MONOTONIC
	Age        time.Duration // from capture until the answer was here
	Prep       time.Duration
	Invoke     time.Duration
	Scores     []float32 // per class
	Top        []infer.Score
}

// latest is the newest result of a camera, for whoever looks.
type latest struct {
	mu      sync.Mutex
	ok      bool
	source  uint32 // the ring r is of
	r       Result
	top     []infer.Score
	at      time.Time
	results uint64
	stale   uint64
	dropped uint64
}

// set takes an answer, unless serves says that another model's count by now or
// the frame was answered already: then both models saw it during a swap. Frames
// that nobody answered are the gaps in the sequence; they are counted here,
// where a swap makes no difference.
func (l *latest) set(source uint32, r *Result, serves func() bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	same := l.ok && l.source == source
	if !serves() || same && r.Seq <= l.r.Seq {
		return false
	}
	if same {
		l.dropped += r.Seq - l.r.Seq - 1
	}
	l.ok, l.source, l.r, l.at = true, source, *r, time.Now()
	l.top = append(l.top[:0], r.Top...)
	l.r.Top, l.r.Scores = nil, nil
	l.results++
	return true
}

func (l *latest) countStale() {
	l.mu.Lock()
	l.stale++
	l.mu.Unlock()
}

// window is how many of the newest durations the quantiles are taken of.
const window = 512

// tally counts what one model's child answered.
type tally struct {
	mu       sync.Mutex
	scores   []float32
	top      []infer.Score
	classes  []uint64
	results  uint64
	errors   uint64
	hangs    int
	last     time.Time
	invoke   [window]time.Duration
	n        int
	perSec   uint64
	fps      float64
	secStart time.Time
	sorted   []time.Duration
}

func (t *tally) reset(classes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.scores = make([]float32, classes)
	t.classes = make([]uint64, classes)
	t.top = make([]infer.Score, 0, 5)
}

// second closes one interval of the rate.
func (t *tally) second(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := now.Sub(t.secStart).Seconds(); d > 0 {
		t.fps = float64(t.perSec) / d
	}
	t.perSec, t.secStart = 0, now
}

func (t *tally) lastResult() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}

func (t *tally) hang() {
	t.mu.Lock()
	t.hangs++
	t.mu.Unlock()
}

// quantiles returns the median and the 99th percentile of the newest
// inferences, preprocessing included.
func (t *tally) quantiles() (p50, p99 time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := min(t.n, window)
	if k == 0 {
		return 0, 0
	}
	t.sorted = append(t.sorted[:0], t.invoke[:k]...)
	slices.Sort(t.sorted)
	return t.sorted[k/2], t.sorted[min(k-1, k*99/100)]
}

func (t *tally) p99() time.Duration {
	_, p := t.quantiles()
	return p
}

// result takes one answer of a child, on its reader goroutine.
func (v *Vision) result(m *modelUnit, r *protocol.Result) {
	v.sourcesMu.RLock()
	u := v.sources[r.Source]
	v.sourcesMu.RUnlock()
	if u == nil {
		return // of a ring that is gone
	}
	now := time.Now()
	m.tally.mu.Lock()
	defer m.tally.mu.Unlock()
	t := &m.tally
	t.last = now
	switch {
	case r.Status == protocol.TooOld, r.Status == protocol.OK && r.StartNs-r.CapturedNs > v.staleNs.Load():
		if v.serving.Load() == m {
			u.latest.countStale()
		}
		return
	case r.Status != protocol.OK:
		t.errors++
		return
	}
	scores, err := m.model.Spec.Scores(r.Data, t.scores)
	if err != nil {
		t.errors++
		return
	}
	k := min(m.model.Spec.Postprocess.TopK, len(scores))
	if cap(t.top) < k {
		t.top = make([]infer.Score, 0, k)
	}
	t.top = m.model.Spec.TopK(scores, t.top[:0:k])
	t.results++
	t.perSec++
	t.classes[t.top[0].Class]++
	t.invoke[t.n%window] = time.Duration(r.PrepNs + r.InvokeNs)
	t.n++
	if v.serving.Load() != m {
		return
	}
	res := Result{
		Camera: u.camera.Name, Release: m.model.Release.Path, Seq: r.ID,
		CapturedAt: time.Duration(r.CapturedNs), Age: camera.Monotonic() - time.Duration(r.CapturedNs),
		Prep: time.Duration(r.PrepNs), Invoke: time.Duration(r.InvokeNs),
		Scores: scores, Top: t.top,
	}
	if u.latest.set(r.Source, &res, func() bool { return v.serving.Load() == m }) {
		v.cfg.OnResult(&res)
	}
}
