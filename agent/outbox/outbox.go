package outbox

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

var (
	// ErrClosed is returned after Close.
	ErrClosed  = errors.New("outbox: closed")
	errDamaged = errors.New("outbox: record damaged since it was written")
)

// Config bounds an outbox. Zero values mean the defaults.
type Config struct {
	MaxCount    int           // messages; 10,000
	MaxBytes    int64         // of the files; 8 MiB, at least two segments
	SegmentSize int64         // an eighth of MaxBytes, at least one largest message
	MaxMemory   int64         // bytes kept in memory when the disk is full; 1 MiB
	SyncEvery   time.Duration // 1 s
	Log         *slog.Logger  // needed
}

func (c Config) filled() Config {
	if c.MaxCount <= 0 {
		c.MaxCount = 10_000
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 8 << 20
	}
	if c.SegmentSize <= 0 {
		c.SegmentSize = max(c.MaxBytes/8, maxRecord+headLen+int64(len(magic)))
	}
	c.MaxBytes = max(c.MaxBytes, 2*c.SegmentSize)
	if c.MaxMemory <= 0 {
		c.MaxMemory = 1 << 20
	}
	if c.SyncEvery <= 0 {
		c.SyncEvery = time.Second
	}
	return c
}

// entry is a message that waits: in a segment, or in memory.
type entry struct {
	place
	seg     *segment // nil: in memory
	topic   string
	payload []byte
}

// Stats count since the outbox was opened.
type Stats struct {
	Waiting int   // messages that wait now
	Memory  int   // of these, in memory only
	Dropped int64 // oldest messages given up for newer ones
	Healed  int64 // bytes cut off damaged segments
	Sent    int64
}

// Outbox is safe for concurrent use; one Run at a time.
type Outbox struct {
	cfg  Config
	dir  string
	wake chan struct{} // cap 1

	mu       sync.Mutex
	segs     []*segment
	cursor   *os.File
	queue    []entry
	next     uint64 // sequence number of the next message
	memory   int64  // bytes of entries in memory
	stats    Stats
	problem  error
	unsynced bool
	closed   bool
	latest   map[string]*slot
	order    []string // topics of latest, as first given
}

// Open opens the outbox in dir, which is made if it does not exist, and heals
// it.
func Open(dir string, c Config) (*Outbox, error) {
	if c.Log == nil {
		return nil, errors.New("outbox: no logger")
	}
	o := &Outbox{cfg: c.filled(), dir: dir, wake: make(chan struct{}, 1), next: 1, latest: map[string]*slot{}}
	if err := o.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("outbox: open %s: %w", dir, err), o.Close())
	}
	return o, nil
}

func (o *Outbox) open() error {
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	var err error
	if o.cursor, err = os.OpenFile(filepath.Join(o.dir, cursorName), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	b := make([]byte, cursorLen+1)
	n, _ := o.cursor.ReadAt(b, 0) // too short counts as damaged
	done := decodeCursor(b[:n])
	o.next = done + 1
	files, err := segmentFiles(o.dir)
	if err != nil {
		return err
	}
	for _, path := range files {
		o.next = max(o.next, firstOf(path))
		s, records, healed, err := openSegment(path, o.cfg.SegmentSize+maxRecord+headLen)
		if err != nil {
			// One file that cannot be opened must not stop the device.
			o.cfg.Log.Error("outbox segment left out", "file", path, "error", err)
			continue
		}
		o.stats.Healed += healed
		o.segs = append(o.segs, s)
		for _, r := range records {
			o.next = max(o.next, r.seq+1)
			if r.seq > done {
				o.queue = append(o.queue, entry{place: r, seg: s})
				s.live++
			}
		}
	}
	if o.stats.Healed > 0 {
		o.cfg.Log.Warn("outbox healed", "bytes_cut_off", o.stats.Healed)
	}
	o.bound()
	o.tidy()
	return nil
}

// Close syncs and closes the files. Run must have returned.
func (o *Outbox) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.closed = true
	var err error
	for i, s := range o.segs {
		if i == len(o.segs)-1 {
			err = errors.Join(err, s.file.Sync())
		}
		err = errors.Join(err, s.file.Close())
	}
	if o.cursor != nil {
		err = errors.Join(err, o.cursor.Close())
	}
	return err
}

// Put queues a message of at most wire.MaxMessage bytes. It does not keep
// payload. It fails only for a message that is too large and after Close: a
// disk that is full is a Problem, not an error.
func (o *Outbox) Put(topic string, payload []byte) error {
	if len(topic) > maxTopic || len(payload) > wire.MaxMessage {
		return fmt.Errorf("outbox: put %q: %w: %d bytes", topic[:min(len(topic), maxTopic)], wire.ErrTooLarge, len(payload))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return ErrClosed
	}
	e := entry{place: place{seq: o.next}, topic: topic, payload: append([]byte(nil), payload...)}
	o.next++
	o.queue = append(o.queue, e)
	o.memory += e.weight()
	o.spill()
	o.bound()
	o.kick()
	return nil
}

func (e *entry) weight() int64 { return int64(len(e.topic) + len(e.payload)) }

// spill writes what is in memory to the file, oldest first, as far as that
// succeeds. Entries in memory are always the newest.
func (o *Outbox) spill() {
	i := len(o.queue)
	for i > 0 && o.queue[i-1].seg == nil {
		i--
	}
	for ; i < len(o.queue); i++ {
		e := &o.queue[i]
		b := encodeRecord(e.seq, e.topic, e.payload)
		s, err := o.tail(int64(len(b)), e.seq)
		if err == nil {
			off := s.size
			if err = s.append(b); err == nil {
				o.memory -= e.weight()
				*e = entry{place: place{seq: e.seq, off: off, len: len(b)}, seg: s}
				s.live++
				o.unsynced = true
				continue
			}
		}
		o.fail(fmt.Errorf("outbox: cannot write, the newest messages are in memory only: %w", err))
		return
	}
	o.fail(nil)
}

// tail is the segment that has room for n bytes.
func (o *Outbox) tail(n int64, first uint64) (*segment, error) {
	if len(o.segs) > 0 {
		if s := o.segs[len(o.segs)-1]; s.size+n <= o.cfg.SegmentSize {
			return s, nil
		}
	}
	o.sync() // the old one is not synced again
	s, err := createSegment(o.dir, first)
	if err != nil {
		return nil, err
	}
	o.segs = append(o.segs, s)
	return s, nil
}

// bound gives up the oldest messages until the outbox is within its bounds.
func (o *Outbox) bound() {
	over := func() bool {
		var disk int64
		for _, s := range o.segs {
			disk += s.size
		}
		return len(o.queue) > o.cfg.MaxCount || (disk > o.cfg.MaxBytes && len(o.segs) > 1)
	}
	for len(o.queue) > 0 && over() {
		o.stats.Dropped++
		o.pop()
	}
	for i := 0; o.memory > o.cfg.MaxMemory && i < len(o.queue); {
		if o.queue[i].seg != nil {
			i++
			continue
		}
		o.memory -= o.queue[i].weight()
		o.queue = append(o.queue[:i], o.queue[i+1:]...)
		o.stats.Dropped++
	}
}

// pop is done with the oldest message.
func (o *Outbox) pop() {
	e := o.queue[0]
	o.queue[0] = entry{}
	o.queue = o.queue[1:]
	if e.seg == nil {
		o.memory -= e.weight()
	} else {
		e.seg.live--
	}
	if _, err := o.cursor.WriteAt(encodeCursor(e.seq), 0); err != nil {
		o.fail(fmt.Errorf("outbox: cannot note what was sent: %w", err))
	}
	o.tidy()
}

// tidy deletes segments at the beginning that are done with. The last one
// stays: it is appended to.
func (o *Outbox) tidy() {
	for len(o.segs) > 1 && o.segs[0].live == 0 {
		if err := o.segs[0].remove(); err != nil {
			o.cfg.Log.Warn("outbox segment not deleted", "error", err)
		}
		o.segs = o.segs[1:]
	}
}

// sync makes what was written survive a power cut.
func (o *Outbox) sync() {
	if !o.unsynced || len(o.segs) == 0 {
		return
	}
	if err := o.segs[len(o.segs)-1].file.Sync(); err != nil {
		o.fail(fmt.Errorf("outbox: sync: %w", err))
		return
	}
	o.unsynced = false
}

// fail notes a problem, and logs the first of a series.
func (o *Outbox) fail(err error) {
	if err != nil && o.problem == nil {
		o.cfg.Log.Error("outbox", "error", err)
	}
	o.problem = err
}

// Problem says what keeps the outbox from being durable, or nil.
func (o *Outbox) Problem() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.problem
}

// Stats returns the counters.
func (o *Outbox) Stats() Stats {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Waiting = len(o.queue)
	for i := range o.queue {
		if o.queue[i].seg == nil {
			s.Memory++
		}
	}
	return s
}
