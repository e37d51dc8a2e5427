// Package monitor keeps statistics of what the model sees and says, per camera
// and over windows of time. A window becomes one telemetry message; nothing
// leaves the device per frame.
package monitor

import (
	"slices"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
)

// ConfidenceBins is the number of equal bins over [0, 1] of the top score.
const ConfidenceBins = 20

// ages kept for the quantiles of one window: the newest ones.
const ages = 1024

// Monitor collects results. It is safe for concurrent use.
type Monitor struct {
	mu      sync.Mutex
	cameras map[string]*window
	now     func() time.Time
}

type window struct {
	release    string
	began      time.Time
	results    uint64
	classes    []uint64
	confidence [ConfidenceBins]uint64
	ages       [ages]time.Duration
	// counters since the camera started, at the beginning of the window
	dropped, stale uint64
}

// New makes an empty monitor; now is the clock of the windows.
func New(now func() time.Time) *Monitor {
	return &Monitor{cameras: map[string]*window{}, now: now}
}

// Add counts one result. classes is the number of the model's classes, top its
// best scores (at least one). It allocates only when a camera or a release is
// new.
func (m *Monitor) Add(camera, release string, classes int, age time.Duration, top []infer.Score) {
	if len(top) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.cameras[camera]
	if w == nil || w.release != release || len(w.classes) != classes {
		next := &window{release: release, began: m.now(), classes: make([]uint64, classes)}
		if w != nil {
			next.dropped, next.stale = w.dropped, w.stale
		}
		w = next
		m.cameras[camera] = w
	}
	w.ages[w.results%ages] = age
	w.results++
	if c := top[0].Class; c >= 0 && c < classes {
		w.classes[c]++
	}
	w.confidence[min(ConfidenceBins-1, max(0, int(top[0].P*ConfidenceBins)))]++
}

// Totals are counters of a camera since it started.
type Totals struct{ Dropped, Stale uint64 }

// Flush ends all windows and returns them as messages without header; totals
// tells the counters of each camera. Windows without a result are left out.
func (m *Monitor) Flush(totals map[string]Totals) []wire.Telemetry {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var out []wire.Telemetry
	for name, w := range m.cameras {
		if w.results == 0 {
			continue
		}
		t := totals[name]
		p50, p99 := quantiles(w.ages[:min(w.results, ages)])
		out = append(out, wire.Telemetry{
			Camera: name, Release: w.release, Seconds: now.Sub(w.began).Seconds(), Results: w.results,
			Dropped: since(t.Dropped, w.dropped), Stale: since(t.Stale, w.stale),
			Classes: slices.Clone(w.classes), Confidence: slices.Clone(w.confidence[:]),
			AgeP50: p50.Microseconds(), AgeP99: p99.Microseconds(),
		})
		*w = window{release: w.release, began: now, classes: w.classes, dropped: t.Dropped, stale: t.Stale}
		clear(w.classes)
	}
	slices.SortFunc(out, func(a, b wire.Telemetry) int {
		if a.Camera < b.Camera {
			return -1
		}
		return 1
	})
	return out
}

// since allows for a counter that began anew with its camera.
func since(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}

func quantiles(v []time.Duration) (p50, p99 time.Duration) {
	s := slices.Clone(v)
	slices.Sort(s)
	return s[len(s)/2], s[min(len(s)-1, len(s)*99/100)]
}
