package store

import (
	"errors"
	"slices"
)

// pair is one small record in two files; the valid one of the highest revision
// counts. It is not safe for concurrent use.
type pair struct {
	fs       FS
	name     string
	max      int64 // bytes of a file
	mirrored bool  // write both each time, instead of alternately

	rev   uint64 // of the record that counts; 0: none
	older int    // the file to overwrite next
	value []byte
}

func (p *pair) file(i int) string { return p.name + [2]string{".a", ".b"}[i] }

// load reads both files and returns what is wrong with them. A record that is
// missing altogether is no damage.
func (p *pair) load() (problems []error) {
	var have [2]uint64
	missing := 0
	for i := range have {
		b, err := readBounded(p.fs, p.file(i), p.max)
		if errors.Is(err, ErrMissing) {
			missing++
			continue
		}
		if err != nil {
			problems = append(problems, err)
			continue
		}
		rev, payload, err := decodeRecord(b)
		if err != nil {
			problems = append(problems, &CorruptError{Name: p.file(i), Why: err.Error()})
			continue
		}
		have[i] = rev
		if rev > p.rev {
			p.rev, p.value, p.older = rev, payload, 1-i
		}
	}
	if p.mirrored && p.rev > 0 && have[0] != have[1] {
		if missing == 1 {
			problems = append(problems, &CorruptError{Name: p.file(p.older), Why: "missing"})
		}
		if err := writeDurable(p.fs, p.file(p.older), encodeRecord(p.rev, p.value)); err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}

// save makes payload the record. An error means that it does not count; for a
// mirrored record one good copy is a success.
func (p *pair) save(payload []byte) error {
	rec := encodeRecord(p.rev+1, payload)
	first := p.older
	if err := writeDurable(p.fs, p.file(first), rec); err != nil {
		return err
	}
	p.rev, p.value, p.older = p.rev+1, slices.Clone(payload), 1-first
	if p.mirrored {
		// A failure leaves the older record there: valid, and outvoted. The
		// next save begins with this file.
		if err := writeDurable(p.fs, p.file(1-first), rec); err == nil {
			p.older = first
		}
	}
	return nil
}
