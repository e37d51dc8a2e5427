package main

import (
	"sync"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// meter is a progress bar on standard error; where nobody watches it is silent.
// Its methods are safe for concurrent use.
type meter struct {
	mu     sync.Mutex
	p      *mpb.Progress
	bar    *mpb.Bar
	detail string
}

// meter starts a bar.
func (a *app) meter(name string) *meter {
	m := &meter{}
	if !terminal(a.errOut) {
		return m
	}
	m.p = mpb.New(mpb.WithOutput(a.errOut), mpb.WithWidth(40))
	m.bar = m.p.AddBar(0,
		mpb.PrependDecorators(decor.Name(name, decor.WC{W: 10, C: decor.DindentRight}), decor.CountersNoUnit(" %d / %d")),
		mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Any(func(decor.Statistics) string {
			m.mu.Lock()
			defer m.mu.Unlock()
			return "  " + m.detail
		})))
	return m
}

// set moves the bar; detail stands behind it.
func (m *meter) set(done, total int, detail string) {
	if m.bar == nil {
		return
	}
	m.mu.Lock()
	m.detail = detail
	m.mu.Unlock()
	m.bar.SetTotal(int64(total), false)
	m.bar.SetCurrent(int64(done))
}

// end leaves the bar as it stands and waits until it is drawn.
func (m *meter) end() {
	if m.bar == nil {
		return
	}
	m.bar.SetTotal(-1, true)
	m.bar.Abort(false)
	m.p.Wait()
}
