// Package monitor writes down what devices report: that they are there, their
// state, and what happened to them. Everything a device sends is untrusted:
// bounded, decoded, and counted where it is refused. Reception is idempotent by
// boot id and sequence, so that a message that comes twice counts once.
package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
)

// Store is the part of the registry that reports go into.
type Store interface {
	SetOnline(ctx context.Context, id string, online bool) error
	RecordState(ctx context.Context, id, boot string, seq int64, state json.RawMessage) (bool, error)
	AddEvent(ctx context.Context, e registry.Event) (bool, error)
}

// Stats count since the start.
type Stats struct {
	States, Events, Telemetry, Duplicates, Refused int64
}

// Monitor receives. It is safe for concurrent use.
type Monitor struct {
	store Store
	log   *slog.Logger
	// observe is told about every event that was new; may be nil.
	observe func(device string, e wire.Event)

	states, events, telemetry, duplicates, refused atomic.Int64
}

// New makes a Monitor. observe, which may be nil, is called for every new event
// on the goroutine of Receive.
func New(store Store, log *slog.Logger, observe func(device string, e wire.Event)) *Monitor {
	return &Monitor{store: store, log: log, observe: observe}
}

// Stats returns the counters.
func (m *Monitor) Stats() Stats {
	return Stats{m.states.Load(), m.events.Load(), m.telemetry.Load(), m.duplicates.Load(), m.refused.Load()}
}

// Receive takes one message of a device. An error means that the database
// could not be written; a message that is no good is logged and counted.
func (m *Monitor) Receive(ctx context.Context, t wire.Topic, payload []byte) error {
	var err error
	switch t.Leaf {
	case wire.LeafOnline:
		err = m.online(ctx, t.Device, payload)
	case wire.LeafState:
		err = m.state(ctx, t.Device, payload)
	case wire.LeafEvent:
		err = m.event(ctx, t.Device, payload)
	case wire.LeafTelemetry:
		err = m.window(ctx, t.Device, payload)
	default:
		return nil
	}
	var bad *badMessage
	if errors.As(err, &bad) || errors.Is(err, registry.ErrNotFound) {
		m.refused.Add(1)
		m.log.Warn("report refused", "device", t.Device, "topic", t.Leaf, "error", err)
		return nil
	}
	return err
}

// badMessage is a message that is the device's fault.
type badMessage struct{ err error }

func (b *badMessage) Error() string { return b.err.Error() }
func (b *badMessage) Unwrap() error { return b.err }

// decode reads one message with its header.
func decode(payload []byte, into any, h *wire.Header) error {
	if err := wire.Decode(payload, wire.MaxMessage, into); err != nil {
		return &badMessage{err}
	}
	if h != nil && (h.Boot == "" || len(h.Boot) > 64 || h.Seq == 0 || h.Seq > 1<<62) {
		return &badMessage{fmt.Errorf("%w: boot id %.64q, sequence %d", wire.ErrMalformed, h.Boot, h.Seq)}
	}
	return nil
}

func (m *Monitor) online(ctx context.Context, device string, payload []byte) error {
	var o wire.Online
	if err := decode(payload, &o, nil); err != nil {
		return err
	}
	return m.store.SetOnline(ctx, device, o.Online)
}

func (m *Monitor) state(ctx context.Context, device string, payload []byte) error {
	var s wire.State
	if err := decode(payload, &s, &s.Header); err != nil {
		return err
	}
	// What is stored is what was understood, not what was sent.
	fresh, err := m.store.RecordState(ctx, device, s.Boot, int64(s.Seq), wire.Encode(s))
	if err == nil {
		m.count(&m.states, fresh)
	}
	return err
}

func (m *Monitor) event(ctx context.Context, device string, payload []byte) error {
	var e wire.Event
	if err := decode(payload, &e, &e.Header); err != nil {
		return err
	}
	if e.Kind == "" || len(e.Kind) > 32 || len(e.Message) > 4096 {
		return &badMessage{fmt.Errorf("%w: event kind %.32q, message of %d bytes", wire.ErrMalformed, e.Kind, len(e.Message))}
	}
	added, err := m.store.AddEvent(ctx, registry.Event{
		Device: device, Boot: e.Boot, Seq: int64(e.Seq), At: time.Now(), Kind: string(e.Kind), Release: e.Release, Body: wire.Encode(e),
	})
	if err != nil {
		return err
	}
	m.count(&m.events, added)
	if added && m.observe != nil {
		m.observe(device, e)
	}
	return nil
}

// window is kept as an event of its own kind: a time series store comes with
// the fleet's dashboards.
func (m *Monitor) window(ctx context.Context, device string, payload []byte) error {
	var t wire.Telemetry
	if err := decode(payload, &t, &t.Header); err != nil {
		return err
	}
	added, err := m.store.AddEvent(ctx, registry.Event{
		Device: device, Boot: t.Boot, Seq: int64(t.Seq), At: time.Now(), Kind: Telemetry, Release: t.Release, Body: wire.Encode(t),
	})
	if err == nil {
		m.count(&m.telemetry, added)
	}
	return err
}

// Telemetry is the kind under which a window of statistics is stored.
const Telemetry = "telemetry"

func (m *Monitor) count(c *atomic.Int64, fresh bool) {
	if fresh {
		c.Add(1)
	} else {
		m.duplicates.Add(1)
	}
}
