package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Limits of record files, in bytes.
const (
	maxSmall = 1 << 20
	maxTrust = 8 << 20
)

// Store is the open state folder. One process at a time may have it open. It
// is safe for concurrent use.
type Store struct {
	fs    FS
	blobs *Blobs

	mu       sync.Mutex
	slots    Slots
	slotsRec pair
	journal  pair
	trust    pair
	floor    pair
	problems []error
}

// Open reads the state folder behind fsys, making what is missing. It fails
// only when the folder cannot be used at all; damage is told by Problems.
func Open(fsys FS) (*Store, error) {
	for _, dir := range []string{blobDir, partDir} {
		if err := fsys.MkdirAll(dir); err != nil {
			return nil, wrap("make folder", dir, err)
		}
	}
	if err := fsys.SyncDir("."); err != nil {
		return nil, wrap("sync folder", ".", err)
	}
	s := &Store{
		fs:       fsys,
		blobs:    &Blobs{fs: fsys},
		slotsRec: pair{fs: fsys, name: "slots", max: maxSmall, mirrored: true},
		journal:  pair{fs: fsys, name: "journal", max: maxSmall},
		trust:    pair{fs: fsys, name: "trust", max: maxTrust},
		floor:    pair{fs: fsys, name: "floor", max: maxSmall, mirrored: true},
	}
	s.sweep()
	for _, p := range []*pair{&s.slotsRec, &s.journal, &s.trust, &s.floor} {
		s.problems = append(s.problems, p.load()...)
	}
	if s.slotsRec.rev > 0 {
		if err := json.Unmarshal(s.slotsRec.value, &s.slots); err != nil {
			s.slots = Slots{}
			s.problems = append(s.problems, &CorruptError{Name: "slots", Why: err.Error()})
		}
	}
	return s, nil
}

// sweep removes temporary files that a cut left behind. What it cannot remove
// does no harm.
func (s *Store) sweep() {
	names, err := s.fs.List(".")
	if err != nil {
		s.problems = append(s.problems, wrap("list", ".", err))
	}
	for _, n := range names {
		if strings.HasSuffix(n, tmpSuffix) {
			_ = s.fs.Remove(n)
		}
	}
}

// Blobs is the content-addressed part of the store.
func (s *Store) Blobs() *Blobs { return s.blobs }

// Problems tells what was found damaged since Open.
func (s *Store) Problems() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

// Journal returns the newest valid journal entry; nil when there is none.
func (s *Store) Journal() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.journal.value)
}

// SaveJournal makes entry the newest journal entry; on error the last one
// holds.
func (s *Store) SaveJournal(entry []byte) error {
	if len(entry) > maxSmall/2 {
		return fmt.Errorf("store: journal entry of %d bytes", len(entry))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.save(entry)
}

// GC removes every blob and every .part that neither a slot nor keep names,
// and every .part whose blob is here, and returns how many files went. It goes on past files it cannot remove and
// returns the first error.
func (s *Store) GC(keep ...string) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	named := map[string]bool{}
	for _, d := range keep {
		named[d] = true
	}
	for _, r := range []*Release{s.slots.Active, s.slots.Candidate, s.slots.Previous} {
		for _, d := range r.blobs() {
			named[d] = true
		}
	}
	return s.blobs.removeBut(named)
}
