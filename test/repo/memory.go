package repo

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/droverhq/drover/cloud/publish"
)

// Memory is a publish.Repo in memory. The zero value is empty and ready. It is
// safe for concurrent use.
type Memory struct {
	mu    sync.Mutex
	roles map[string][]publish.Metadata // by version, growing
}

// Latest implements publish.Repo.
func (m *Memory) Latest(_ context.Context, role string) ([]byte, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.roles[role]
	if len(all) == 0 {
		return nil, 0, nil
	}
	last := all[len(all)-1]
	return slices.Clone(last.Raw), last.Version, nil
}

// Get implements publish.Repo.
func (m *Memory) Get(_ context.Context, role string, version int64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.roles[role] {
		if k.Version == version {
			return slices.Clone(k.Raw), nil
		}
	}
	return nil, fmt.Errorf("repo: no %s version %d", role, version)
}

// Append implements publish.Repo.
func (m *Memory) Append(_ context.Context, ms ...publish.Metadata) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range ms {
		if have := m.roles[k.Role]; len(have) > 0 && have[len(have)-1].Version >= k.Version {
			return fmt.Errorf("repo: %s version %d after %d", k.Role, k.Version, have[len(have)-1].Version)
		}
	}
	if m.roles == nil {
		m.roles = map[string][]publish.Metadata{}
	}
	for _, k := range ms {
		k.Raw = slices.Clone(k.Raw)
		m.roles[k.Role] = append(m.roles[k.Role], k)
	}
	return nil
}
