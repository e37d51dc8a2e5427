package outbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// segment is one file of records.
type segment struct {
	path string
	file *os.File
	size int64 // of sound bytes
	live int   // records not done with
}

func segmentPath(dir string, first uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x.seg", first))
}

func createSegment(dir string, first uint64) (*segment, error) {
	path := segmentPath(dir, first)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	s := &segment{path: path, file: f}
	if err := s.append([]byte(magic)); err != nil {
		return nil, errors.Join(err, s.remove())
	}
	return s, syncDir(dir)
}

// append writes at the end; after a failure the file ends as before.
func (s *segment) append(b []byte) error {
	if _, err := s.file.WriteAt(b, s.size); err != nil {
		return errors.Join(err, s.file.Truncate(s.size))
	}
	s.size += int64(len(b))
	return nil
}

func (s *segment) remove() error { return errors.Join(s.file.Close(), os.Remove(s.path)) }

// place is where a record stands.
type place struct {
	seq uint64
	off int64
	len int
}

// openSegment reads a segment and cuts off what is not sound. healed is the
// number of bytes cut off.
func openSegment(path string, limit int64) (s *segment, records []place, healed int64, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return nil, nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, 0, err
	}
	s = &segment{path: path, file: f}
	if strings.HasPrefix(string(b), magic) {
		s.size = int64(len(magic))
		for {
			seq, _, _, n := decodeRecord(b[s.size:])
			if n == 0 || (len(records) > 0 && seq <= records[len(records)-1].seq) {
				break
			}
			records = append(records, place{seq: seq, off: s.size, len: n})
			s.size += int64(n)
		}
	}
	healed = info.Size() - s.size
	if healed > 0 {
		err = f.Truncate(s.size)
	}
	if err == nil && s.size == 0 {
		err = s.append([]byte(magic))
	}
	return s, records, healed, err
}

func (s *segment) read(p place) (topic string, payload []byte, err error) {
	b := make([]byte, p.len)
	if _, err := s.file.ReadAt(b, p.off); err != nil {
		return "", nil, err
	}
	seq, topic, payload, n := decodeRecord(b)
	if n != p.len || seq != p.seq {
		return "", nil, errDamaged
	}
	return topic, payload, nil
}

// segmentFiles lists the segments, oldest first.
func segmentFiles(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range all {
		hex, ok := strings.CutSuffix(e.Name(), ".seg")
		if _, err := strconv.ParseUint(hex, 16, 64); ok && err == nil && len(hex) == 16 && e.Type().IsRegular() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(out)
	return out, nil
}

func firstOf(path string) uint64 {
	n, _ := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), ".seg"), 16, 64) // checked by segmentFiles
	return n
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
