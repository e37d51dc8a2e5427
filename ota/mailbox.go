package ota

import (
	"sync"

	"github.com/droverhq/drover/agent/wire"
)

// maxOffers bounds the role metadata that waits for the loop.
const maxOffers = 32

// mailbox takes metadata from the network's goroutine. Putting never blocks;
// of what does not fit the oldest is dropped and counted.
type mailbox struct {
	wake chan struct{} // capacity 1: something is there

	mu      sync.Mutex
	current []byte
	roles   []roleOffer
	labels  map[string]string // nil: unchanged
	dropped uint64
}

type roleOffer struct {
	role    string
	version int64
	raw     []byte
}

func newMailbox() *mailbox { return &mailbox{wake: make(chan struct{}, 1)} }

func (m *mailbox) signal() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

func (m *mailbox) putCurrent(b []byte) {
	m.mu.Lock()
	if len(b) > wire.MaxCurrent {
		m.dropped++
	} else {
		if m.current != nil {
			m.dropped++
		}
		m.current = b
	}
	m.mu.Unlock()
	m.signal()
}

func (m *mailbox) putRole(o roleOffer) {
	m.mu.Lock()
	switch {
	case len(o.raw) > wire.MaxMetadata(o.role):
		m.dropped++
	case len(m.roles) == maxOffers:
		m.dropped++
		m.roles = append(m.roles[:0:0], m.roles[1:]...)
		fallthrough
	default:
		m.roles = append(m.roles, o)
	}
	m.mu.Unlock()
	m.signal()
}

func (m *mailbox) putLabels(labels map[string]string) {
	m.mu.Lock()
	m.labels = labels
	m.mu.Unlock()
	m.signal()
}

func (m *mailbox) takeLabels() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.labels
	m.labels = nil
	return l
}

func (m *mailbox) take() (current []byte, roles []roleOffer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	current, roles = m.current, m.roles
	m.current, m.roles = nil, nil
	return current, roles
}

func (m *mailbox) droppedCount() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dropped
}
