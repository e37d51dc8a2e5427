package up

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// events are what the device reported to the hub, in order.
type events struct {
	mu   sync.Mutex
	all  []wire.Event
	wake chan struct{} // closed and replaced at every event
}

func newEvents() *events { return &events{wake: make(chan struct{})} }

// add is called by the hub.
func (e *events) add(_ string, ev wire.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, ev)
	close(e.wake)
	e.wake = make(chan struct{})
}

// mark is the number of events so far: where a wait begins.
func (e *events) mark() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.all)
}

// wait returns the first event from mark on that fits.
func (e *events) wait(ctx context.Context, mark int, limit time.Duration, what string, fits func(wire.Event) bool) (wire.Event, error) {
	timeout := time.After(limit)
	for {
		e.mu.Lock()
		for ; mark < len(e.all); mark++ {
			if fits(e.all[mark]) {
				ev := e.all[mark]
				e.mu.Unlock()
				return ev, nil
			}
		}
		wake := e.wake
		e.mu.Unlock()
		select {
		case <-wake:
		case <-timeout:
			return wire.Event{}, fmt.Errorf("up: the device did not report within %v: %s", limit, what)
		case <-ctx.Done():
			return wire.Event{}, ctx.Err()
		}
	}
}
