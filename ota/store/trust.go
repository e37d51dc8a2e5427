package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// LoadTrust returns the newest valid generation of trust metadata and the
// newest valid floor; both are empty on a new device. The files may be older
// than the floor, when a cut or damage came between: the caller compares. An
// error is one of reading the disk, not damage: damage heals or is told by
// Problems.
func (s *Store) LoadTrust() (files map[string][]byte, floor []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	files = map[string][]byte{}
	if s.trust.rev > 0 {
		if err := json.Unmarshal(s.trust.value, &files); err != nil {
			s.problems = append(s.problems, &CorruptError{Name: "trust", Why: err.Error()})
			files = map[string][]byte{}
		}
	}
	return files, slices.Clone(s.floor.value), nil
}

// SaveTrust makes a generation of metadata and the floor durable. The floor is
// written first: a cut between the two leaves files below the floor, which are
// fetched again, and never a floor below files that were believed.
func (s *Store) SaveTrust(files map[string][]byte, floor []byte) error {
	b, err := json.Marshal(maps.Clone(files))
	if err != nil {
		return fmt.Errorf("store: trust: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.floor.rev == 0 || !bytes.Equal(floor, s.floor.value) {
		if err := s.floor.save(floor); err != nil {
			return err
		}
	}
	if s.trust.rev > 0 && bytes.Equal(b, s.trust.value) {
		return nil
	}
	return s.trust.save(b)
}
