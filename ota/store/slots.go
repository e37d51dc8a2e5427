package store

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Release is what a slot holds: a release that was verified before it came
// here, and everything needed to run it without a network.
type Release struct {
	Path     string          `json:"path"`     // release/{model}/{version}
	Manifest string          `json:"manifest"` // blob digests, lower-case hexadecimal
	Variant  string          `json:"variant"`
	Model    string          `json:"model"`
	Golden   string          `json:"golden"`
	Epoch    uint64          `json:"epoch"`
	Plan     string          `json:"plan,omitempty"`    // that brought it
	Runtime  json.RawMessage `json:"runtime,omitempty"` // what the probe chose
}

func (r *Release) blobs() []string {
	if r == nil {
		return nil
	}
	return []string{r.Manifest, r.Model, r.Golden}
}

// Slots is which release has which part. Active is the last one committed: a
// release on trial stays Candidate until its commit, so that whatever happens
// before, the device starts with Active.
type Slots struct {
	Active    *Release `json:"active,omitempty"`
	Candidate *Release `json:"candidate,omitempty"`
	Previous  *Release `json:"previous,omitempty"` // runs when Active's files are damaged
}

// Slots returns the slots. The releases must not be changed.
func (s *Store) Slots() Slots {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.slots
}

// SaveSlots makes the slots durable; on error the old ones hold.
func (s *Store) SaveSlots(slots Slots) error {
	b, err := json.Marshal(slots)
	if err != nil {
		return fmt.Errorf("store: slots: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slotsRec.rev > 0 && bytes.Equal(b, s.slotsRec.value) {
		return nil
	}
	if err := s.slotsRec.save(b); err != nil {
		return err
	}
	s.slots = slots
	return nil
}
