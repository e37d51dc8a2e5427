package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// status of a chunk.
type status byte

const (
	missing status = iota // nobody was asked
	asked                 // it may be on its way
	lost                  // it was asked for and did not come
	here
)

// job is one blob on its way. All of it belongs to the goroutine of Fetch.
type job struct {
	f        *Fetcher
	ref      wire.BlobRef
	part     Part
	budget   *Budget
	progress func(done, total int64)

	ways   []*way
	chunks []status
	batch  []int // number of the request that a chunk was last asked with
	left   int   // chunks not here
	out    int   // chunks asked for
	done   int64 // bytes here
	dirty  int   // chunks written since the last sync
	got    int64 // bytes that came over the shared topic or the device's own

	active   *way      // the one asked last
	requests int       // numbers them
	deadline time.Time // when what was asked for is given up
	gained   bool      // something new came since the last request or lapse
	silent   int       // requests in a row that brought nothing
	wait     time.Duration
	listen   time.Time // lost chunks are not asked for before; zero: not decided
	alone    bool
	reading  *work // a Reader at work
	settling *work
	settled  bool // since the last chunk

	// slow is about the longest time that a chunk took lately. On a slow link
	// a short pause would ask again for what is already on its way.
	slow time.Duration
	last time.Time // when the last chunk came, or the first was asked for
}

func newJob(f *Fetcher, ref wire.BlobRef, part Part, b *Budget, progress func(done, total int64)) *job {
	return &job{f: f, ref: ref, part: part, budget: b, progress: progress, ways: ways(&f.cfg)}
}

// verifiable says whether chunks can be checked one by one.
func (j *job) verifiable() bool { return j.ref.Count() == 1 || len(j.ref.Chunks) > 0 }

// accept says whether data may be chunk i, as far as can be known now.
func (j *job) accept(i int, data []byte) bool {
	if j.verifiable() {
		return j.ref.CheckChunk(i, data)
	}
	return i >= 0 && i < j.ref.Count() && len(data) == j.ref.ChunkLen(i)
}

// resume finds out which chunks an earlier run left in the part.
func (j *job) resume(ctx context.Context) error {
	j.chunks = make([]status, j.ref.Count())
	j.batch = make([]int, len(j.chunks))
	j.left = len(j.chunks)
	size, err := j.part.Size()
	if err != nil {
		return err
	}
	if (size > 0 || j.ref.Size == 0) && j.verifiable() {
		buf := make([]byte, wire.ChunkSize)
		for i := range j.chunks {
			if err := ctx.Err(); err != nil {
				return err
			}
			b := buf[:j.ref.ChunkLen(i)]
			n, err := j.part.ReadAt(b, int64(i)*wire.ChunkSize)
			if err != nil && err != io.EOF {
				return err
			}
			if n == len(b) && j.ref.CheckChunk(i, b) {
				j.mark(i, n)
			}
		}
	}
	if size > j.ref.Size {
		if err := j.part.Truncate(j.ref.Size); err != nil {
			return err
		}
	}
	j.progress(j.done, j.ref.Size)
	return nil
}

func (j *job) mark(i, n int) {
	if j.chunks[i] == asked {
		j.out--
	}
	j.chunks[i] = here
	j.left--
	j.done += int64(n)
}

// run asks and takes until nothing is missing.
func (j *job) run(ctx context.Context) error {
	defer j.stop(&j.reading)
	defer j.stop(&j.settling)
	j.wait, j.last = j.pause(), time.Now()
	for j.left > 0 {
		if err := j.budget.check(); err != nil {
			return err
		}
		if j.silent >= j.patience() {
			return fmt.Errorf("%w: %d of %d missing after %d requests without an answer", ErrStalled, j.left, len(j.chunks), j.silent)
		}
		until := j.ask(ctx)
		if until.After(time.Now()) && j.dirty >= Window {
			if err := j.sync(); err != nil {
				return err
			}
		}
		if err := j.await(ctx, until); err != nil {
			return err
		}
	}
	return j.sync()
}

// patience is how many requests in a row may bring nothing.
func (j *job) patience() int {
	n := 0
	for _, w := range j.ways {
		if !w.near {
			n++
		}
	}
	return j.f.cfg.Retries * max(1, n)
}

// pause is how long to wait for the next chunk of a source that answers.
func (j *job) pause() time.Duration {
	return min(max(j.f.cfg.Pause, 3*j.slow), j.f.cfg.MaxPause)
}

// await takes what comes until then, or the next thing that happens.
func (j *job) await(ctx context.Context, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	var ended, settled chan error
	if j.reading != nil {
		ended = j.reading.ended
	}
	if j.settling != nil {
		settled = j.settling.ended
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case c := <-j.f.in:
		return j.take(c)
	case err := <-ended:
		return j.readEnded(err)
	case <-settled:
		j.stopped(&j.settling)
		j.deadline = time.Now().Add(j.f.cfg.Pause / 20) // the last of it is on its way through this process
		return nil
	case <-timer.C:
		if j.out > 0 && !time.Now().Before(j.deadline) {
			j.lapse(ctx)
		}
		return j.sync() // there is time for it
	}
}

// take writes a chunk that is right and missing. A right one that is here
// already also shows that the source is alive and the link busy.
func (j *job) take(c chunk) error {
	s := &j.f.stats
	if c.shared {
		j.got += int64(len(c.data))
	}
	switch {
	case c.digest != j.ref.Digest:
		s.unasked.Add(1)
		return nil
	case c.index < 0 || c.index >= len(j.chunks):
		s.corrupt.Add(1)
		return nil
	case j.chunks[c.index] == here:
		s.duplicate.Add(1)
		if c.shared {
			j.f.pace.spend(time.Now(), len(c.data))
		}
		if j.accept(c.index, c.data) {
			j.alive()
		}
		return nil
	case !j.accept(c.index, c.data):
		s.corrupt.Add(1)
		return nil
	}
	if c.shared && j.chunks[c.index] != asked {
		j.f.pace.spend(time.Now(), len(c.data))
	}
	if _, err := j.part.WriteAt(c.data, int64(c.index)*wire.ChunkSize); err != nil {
		return err
	}
	s.good.Add(1)
	if c.shared && j.chunks[c.index] == asked {
		j.overtaken(c.index)
	}
	j.mark(c.index, len(c.data))
	j.dirty++
	j.gained, j.silent, j.wait = true, 0, j.pause()
	if j.active != nil {
		j.active.fails = 0
	}
	j.alive()
	j.progress(j.done, j.ref.Size)
	if j.dirty >= Window {
		return j.sync()
	}
	return nil
}

// alive notes that a chunk came.
func (j *job) alive() {
	now := time.Now()
	j.settled = false
	j.slow = max(now.Sub(j.last), j.slow*7/8)
	j.last = now
	if d := now.Add(max(j.wait, j.pause())); d.After(j.deadline) {
		j.deadline = d
	}
}

// overtaken gives up what was asked for together with a chunk and stands
// before it: chunks of one request come in order, over one connection.
func (j *job) overtaken(i int) {
	for k := i - 1; k >= 0 && k >= i-wire.MaxWant*8; k-- {
		if j.chunks[k] == asked && j.batch[k] == j.batch[i] {
			j.chunks[k] = lost
			j.out--
		}
	}
}

// giveUp counts all that was asked for as lost.
func (j *job) giveUp() {
	for i, s := range j.chunks {
		if s == asked {
			j.chunks[i] = lost
			if j.active != nil && j.active.near {
				j.active.skip[i] = true
				j.chunks[i] = missing
			}
		}
	}
	j.out = 0
}

// lapse gives up what was asked for. When many devices are served at once, a
// link may be silent for long with everything still on its way: asking again
// would make it worse. So the source is asked first whether that is so.
func (j *job) lapse(ctx context.Context) {
	w := j.active
	if s, ok := w.push.(Settler); ok && !j.settled {
		j.settled = true
		j.settling = start(ctx, s.Settle)
		j.deadline = time.Now().Add(j.f.cfg.MaxPause)
		return
	}
	j.stop(&j.settling)
	hung := j.reading != nil // in the middle of an answer: another source may do better
	j.stop(&j.reading)
	j.settled = false
	j.giveUp()
	j.listen = time.Now() // the pause was jittered, and long enough to listen
	if !j.gained || hung {
		j.failed(w, true)
		for _, n := range j.ways {
			if n.near { // a stick may have been put in meanwhile
				n.gone, n.skip = false, map[int]bool{}
			}
		}
	}
	j.gained = false
}

// failed has a source rest for a while, waited or not.
func (j *job) failed(w *way, waited bool) {
	if w == nil || w.near {
		return
	}
	w.fails++
	j.silent++
	sole := true
	for _, o := range j.ways {
		if o != w && !o.near && !o.gone {
			sole = false
		}
	}
	if waited && (sole || w.push != nil && w.fails <= 2) {
		// What is shared by many may take its time to begin: the hub is asked
		// twice more before a source that costs a copy for each device.
		j.wait = min(2*j.wait, j.f.cfg.MaxPause)
		return
	}
	if !sole {
		j.f.stats.moved.Add(1)
		j.wait = j.pause()
	}
	w.until = time.Now().Add(jitter(min(j.f.cfg.Pause<<min(w.fails-1, 16), j.f.cfg.MaxPause)))
}

func (j *job) sync() error {
	if j.dirty == 0 {
		return nil
	}
	j.dirty = 0
	return j.part.Sync()
}

// work is a goroutine that the job waits for.
type work struct {
	cancel context.CancelFunc
	ended  chan error // cap 1
}

func start(ctx context.Context, do func(context.Context) error) *work {
	ctx, cancel := context.WithCancel(ctx)
	w := &work{cancel: cancel, ended: make(chan error, 1)}
	go func() { w.ended <- do(ctx) }()
	return w
}

// stop ends a work, if there is one, and waits for it.
func (j *job) stop(w **work) {
	if *w != nil {
		(*w).cancel()
		<-(*w).ended
		*w = nil
	}
}

// stopped forgets a work that has ended.
func (j *job) stopped(w **work) {
	(*w).cancel()
	*w = nil
}

func (j *job) read(ctx context.Context, w *way, chunks []int) {
	j.reading = start(ctx, func(ctx context.Context) error {
		return w.pull.Read(ctx, j.ref, chunks, func(i int, data []byte) {
			if !w.near {
				j.f.stats.bytes.Add(uint64(len(data)))
				j.budget.add(len(data))
			}
			select {
			case j.f.in <- chunk{digest: j.ref.Digest, index: i, data: data}:
			case <-ctx.Done():
			}
		})
	})
}

func (j *job) readEnded(err error) error {
	j.stopped(&j.reading)
	for len(j.f.in) > 0 { // what it brought counts
		if err := j.take(<-j.f.in); err != nil {
			return err
		}
	}
	w := j.active
	short := j.out > 0
	j.giveUp()
	if err != nil {
		j.f.cfg.Logger.Debug("fetch: source failed", "blob", j.ref.Digest, "error", err)
	}
	w.gone = w.gone || errors.Is(err, ErrAbsent)
	if err != nil || short {
		j.failed(w, false)
	}
	return nil
}

// calm is a moment up to a quarter of a pause from now: whoever asks first
// spares the others, who listen, their request.
func (j *job) calm(now time.Time) time.Time { return now.Add(rand.N(j.f.cfg.Pause/4 + 1)) }
