package trust

import (
	"maps"
	"slices"
	"sync"
)

// Store keeps what was accepted. Both methods may be called from any
// goroutine, one at a time.
type Store interface {
	// LoadTrust gives what SaveTrust was last given. The names are those of
	// the roles; what is missing or damaged is simply absent.
	LoadTrust() (files map[string][]byte, floor []byte, err error)
	// SaveTrust replaces everything in one step and returns when it is
	// durable. The floor is kept in at least two checksummed copies.
	SaveTrust(files map[string][]byte, floor []byte) error
}

// Memory is a Store that forgets: for programs that verify once. It is safe
// for concurrent use; the zero value is empty and ready.
type Memory struct {
	mu    sync.Mutex
	files map[string][]byte
	floor []byte
}

// LoadTrust implements Store.
func (m *Memory) LoadTrust() (map[string][]byte, []byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.files), slices.Clone(m.floor), nil
}

// SaveTrust implements Store.
func (m *Memory) SaveTrust(files map[string][]byte, floor []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files, m.floor = maps.Clone(files), slices.Clone(floor)
	return nil
}
