package main

import (
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer/host/protocol"
)

// maxSources bounds the rings that one child looks at.
const maxSources = 16

// source is an attached ring.
type source struct {
	id      uint32
	maxAge  time.Duration // 0: no limit
	ring    *camera.RingReader
	event   *os.File
	pending atomic.Bool // the event was signalled; set by await, taken by the engine
	gone    chan struct{}

	frame   camera.Frame // the newest; its Data is reused
	last    uint64       // Seq of the newest frame taken
	dropped uint64
}

// await turns signals of the event into wake-ups of the engine until the event
// is closed.
func (s *source) await(wake chan<- struct{}) {
	defer close(s.gone)
	for {
		signalled, err := camera.Wait(s.event, time.Hour)
		if err != nil {
			return
		}
		if !signalled {
			continue
		}
		s.pending.Store(true)
		select {
		case wake <- struct{}{}:
		default: // the engine is about to look anyway
		}
	}
}

func (e *engine) find(id uint32) int {
	return slices.IndexFunc(e.sources, func(s *source) bool { return s.id == id })
}

func (e *engine) attach(m *ipc.Message) error {
	var req protocol.Attach
	if err := decode(m, "Attach", &req); err != nil {
		return err
	}
	switch {
	case req.MaxAgeMicros < 0:
		return fmt.Errorf("%w: Attach with a negative age", errParent)
	case len(m.FDs) != 2:
		return fmt.Errorf("%w: Attach with %d descriptors, wanted ring and event", errParent, len(m.FDs))
	case e.plan == nil:
		return fmt.Errorf("%w: Attach, but Load had no spec", errParent)
	case req.Source == protocol.RunSource || e.find(req.Source) >= 0:
		return fmt.Errorf("%w: Attach of source %d, which is taken", errParent, req.Source)
	case len(e.sources) >= maxSources:
		return fmt.Errorf("%w: Attach of more than %d sources", errParent, maxSources)
	}
	file := os.NewFile(uintptr(m.FDs[0]), "ring")
	defer file.Close()
	ring, err := camera.OpenReader(file)
	eventFD := m.FDs[1]
	m.FDs = nil
	event, eventErr := camera.EventFromFD(eventFD)
	if err != nil || eventErr != nil {
		return fmt.Errorf("%w: Attach of source %d: ring: %v; event: %v", errParent, req.Source, err, eventErr)
	}
	s := &source{id: req.Source, maxAge: time.Duration(req.MaxAgeMicros) * time.Microsecond, ring: ring, event: event, gone: make(chan struct{})}
	e.sources = append(e.sources, s)
	go s.await(e.wake)
	return nil
}

func (e *engine) detach(m *ipc.Message) error {
	var req protocol.Detach
	if err := decode(m, "Detach", &req); err != nil {
		return err
	}
	at := e.find(req.Source)
	if at < 0 || len(m.FDs) != 0 {
		return fmt.Errorf("%w: Detach of source %d, which is not attached", errParent, req.Source)
	}
	s := e.sources[at]
	e.sources = slices.Delete(e.sources, at, at+1)
	s.event.Close()
	<-s.gone
	return s.ring.Close()
}

// classify runs the model on a source's newest frame, if there is a new one,
// and sends the result. The error means that the parent cannot be reached.
func (e *engine) classify(s *source) error {
	if !s.pending.Swap(false) {
		return nil
	}
	result := protocol.Result{Source: s.id, StartNs: now()}
	ok, err := s.ring.Next(s.last, &s.frame)
	if err != nil {
		result.Status, result.Data, result.Dropped = protocol.BadFrame, []byte(err.Error()), s.dropped
		return e.send(&result)
	}
	if !ok {
		return nil
	}
	if s.last > 0 {
		s.dropped += s.frame.Seq - s.last - 1
	}
	s.last = s.frame.Seq
	result.ID, result.CapturedNs, result.Dropped = s.frame.Seq, int64(s.frame.CapturedAt), s.dropped
	if s.maxAge > 0 && time.Duration(result.StartNs)-s.frame.CapturedAt > s.maxAge {
		s.dropped++
		result.Status, result.Dropped = protocol.TooOld, s.dropped
		return e.send(&result)
	}
	if e.prepare(&s.frame, &result) {
		e.invoke(&result)
	}
	return e.send(&result)
}
