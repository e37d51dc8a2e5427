package fetch

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// job is one blob on its way. All of it belongs to the goroutine of Fetch.
type job struct {
	f        *Fetcher
	ref      wire.BlobRef
	part     Part
	budget   *Budget
	progress func(done, total int64)

	have  []bool
	left  int   // chunks missing
	done  int64 // bytes here
	dirty int   // chunks written since the last sync
	// slow is about the longest time that a chunk took lately. On a slow link
	// a short pause would ask again for what is already on its way.
	slow time.Duration
	last time.Time // when the last chunk came, or the first was asked for
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
	j.have = make([]bool, j.ref.Count())
	j.left = len(j.have)
	size, err := j.part.Size()
	if err != nil {
		return err
	}
	if (size > 0 || j.ref.Size == 0) && j.verifiable() {
		buf := make([]byte, wire.ChunkSize)
		for i := range j.have {
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
	j.have[i] = true
	j.left--
	j.done += int64(n)
}

// run asks for window after window until nothing is missing.
func (j *job) run(ctx context.Context) error {
	pause, silent := j.pause(), 0
	j.last = time.Now()
	for j.left > 0 {
		if err := j.budget.check(); err != nil {
			return err
		}
		if silent >= j.f.cfg.Retries {
			return fmt.Errorf("%w: %d of %d missing after %d requests without an answer", ErrStalled, j.left, len(j.have), silent)
		}
		first, want, asked := j.window()
		j.f.stats.requests.Add(1)
		if err := j.f.cfg.Source.Request(ctx, j.ref.Digest, first, want); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			j.f.cfg.Logger.Debug("fetch: request did not leave", "blob", j.ref.Digest, "err", err)
		}
		before := j.left
		if err := j.collect(ctx, asked, jitter(pause)); err != nil {
			return err
		}
		if j.left == before {
			pause, silent = min(2*pause, j.f.cfg.MaxPause), silent+1
		} else {
			pause, silent = j.pause(), 0
		}
	}
	return j.sync()
}

// pause is how long to wait for the next chunk of a source that answers.
func (j *job) pause() time.Duration {
	return min(max(j.f.cfg.Pause, 3*j.slow), j.f.cfg.MaxPause)
}

// window chooses up to Window missing chunks, from the first missing one on.
func (j *job) window() (first int, want []byte, asked []int) {
	first = -1
	for i, here := range j.have {
		if here {
			continue
		}
		if first < 0 {
			first = i
		}
		if len(asked) == Window || i-first >= wire.MaxWant*8 {
			break
		}
		for len(want) <= (i-first)/8 {
			want = append(want, 0)
		}
		want[(i-first)/8] |= 1 << ((i - first) % 8)
		asked = append(asked, i)
	}
	return first, want, asked
}

// collect takes chunks until the ones asked for are here, or none came for the
// length of a pause.
func (j *job) collect(ctx context.Context, asked []int, pause time.Duration) error {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-j.f.in:
			alive, err := j.take(c)
			if err != nil {
				return err
			}
			if alive {
				j.slow = max(time.Since(j.last), j.slow*7/8)
				j.last = time.Now()
				timer.Reset(max(pause, j.pause()))
			}
		case <-timer.C:
			return j.sync()
		}
		if err := j.budget.check(); err != nil && j.left > 0 {
			return err
		}
		missing := 0
		for _, i := range asked {
			if !j.have[i] {
				missing++
			}
		}
		if missing == 0 {
			return j.sync()
		}
	}
}

// take writes a chunk that is right and missing. A right one that is here
// already also shows that the source is alive and the link busy.
func (j *job) take(c chunk) (alive bool, err error) {
	s := &j.f.stats
	switch {
	case c.digest != j.ref.Digest:
		s.unasked.Add(1)
	case c.index < 0 || c.index >= len(j.have):
		s.corrupt.Add(1)
	case j.have[c.index]:
		s.duplicate.Add(1)
		return j.accept(c.index, c.data), nil
	case !j.accept(c.index, c.data):
		s.corrupt.Add(1)
	default:
		if _, err := j.part.WriteAt(c.data, int64(c.index)*wire.ChunkSize); err != nil {
			return false, err
		}
		s.good.Add(1)
		j.mark(c.index, len(c.data))
		j.dirty++
		j.progress(j.done, j.ref.Size)
		return true, nil
	}
	return false, nil
}

func (j *job) sync() error {
	if j.dirty == 0 {
		return nil
	}
	j.dirty = 0
	return j.part.Sync()
}
