package fetch

import (
	"context"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// ask makes the next request, if it is time for one, and says until when there
// is nothing to do but to take what comes.
func (j *job) ask(ctx context.Context) time.Time {
	now := time.Now()
	j.leave()
	if j.reading != nil || j.settling != nil || j.out > Window/2 {
		return j.deadline
	}
	w, free := j.pick(now)
	switch {
	case j.out > 0 && w != j.active: // first what was asked for
		return j.deadline
	case w == nil:
		return free
	}
	chunks, again, from := j.choose(w, now)
	if len(chunks) == 0 {
		if j.out > 0 {
			return j.deadline
		}
		return from
	}
	if !w.near {
		n, from := j.f.pace.allow(now, len(chunks))
		if n == 0 {
			if j.out > 0 && j.deadline.Before(from) {
				return j.deadline
			}
			return from
		}
		chunks = chunks[:n]
	}
	j.request(ctx, w, chunks, again)
	return j.deadline
}

// pick is the first source that may be asked, or the time from when on one may.
func (j *job) pick(now time.Time) (*way, time.Time) {
	var free time.Time
	for _, w := range j.ways {
		switch {
		case w.gone || w.near && !j.any(w):
		case !w.until.After(now):
			return w, now
		case free.IsZero() || w.until.Before(free):
			free = w.until
		}
	}
	if free.IsZero() { // nobody has it; one of them may get it
		j.silent++
		for _, w := range j.ways {
			w.gone = false
		}
		free = now.Add(j.wait)
		j.wait = min(2*j.wait, j.f.cfg.MaxPause)
		for _, w := range j.ways {
			w.until, w.skip = free, map[int]bool{}
		}
	}
	return nil, free
}

// any says whether a near source may have something that is missing.
func (j *job) any(w *way) bool {
	for i, s := range j.chunks {
		if s != here && s != asked && !w.skip[i] {
			return true
		}
	}
	return false
}

// choose finds up to a window of chunks to ask a source for, from the first
// missing one on: those that nobody was asked for yet, then those that did not
// come. again says that they are of the latter kind, for which there is a time
// to listen, from.
func (j *job) choose(w *way, now time.Time) (chunks []int, again bool, from time.Time) {
	fresh := func(i int) bool { return j.chunks[i] == missing }
	if w.pull != nil {
		return j.collect(func(i int) bool { return j.chunks[i] != here && j.chunks[i] != asked && !w.skip[i] }), false, now
	}
	if chunks := j.collect(fresh); len(chunks) > 0 || j.out > 0 {
		return chunks, false, now
	}
	if j.listen.IsZero() {
		j.listen = j.calm(now)
	}
	if j.listen.After(now) {
		return nil, true, j.listen
	}
	return j.collect(func(i int) bool { return j.chunks[i] == lost }), true, now
}

func (j *job) collect(want func(i int) bool) []int {
	var out []int
	for i := range j.chunks {
		if !want(i) {
			continue
		}
		if len(out) == Window-j.out || len(out) > 0 && i-out[0] >= wire.MaxWant*8 {
			break
		}
		out = append(out, i)
	}
	return out
}

// request asks a source for chunks.
func (j *job) request(ctx context.Context, w *way, chunks []int, again bool) {
	now := time.Now()
	if j.out == 0 {
		j.gained = false
		if !again && j.silent == 0 {
			j.last = now // the time before was not spent waiting for the source
		}
	}
	j.requests++
	bytes := 0
	for _, i := range chunks {
		j.chunks[i], j.batch[i] = asked, j.requests
		bytes += j.ref.ChunkLen(i)
	}
	j.out += len(chunks)
	j.active, j.listen = w, time.Time{}
	j.deadline = now.Add(jitter(j.wait))
	j.f.stats.requests.Add(1)
	if again {
		j.f.stats.again.Add(1)
	}
	if !w.near {
		j.f.pace.spend(now, bytes)
	}
	if w.pull != nil {
		j.read(ctx, w, chunks)
		return
	}
	if err := j.push(ctx, w.push, chunks, again); err != nil && ctx.Err() == nil {
		j.f.cfg.Logger.Debug("fetch: request did not leave", "blob", j.ref.Digest, "error", err)
		if j.others(w) {
			j.giveUp()
			j.failed(w, false)
			j.deadline = time.Now()
		}
	}
}

// others says whether there is another source on the network.
func (j *job) others(w *way) bool {
	for _, o := range j.ways {
		if o != w && !o.near && !o.gone {
			return true
		}
	}
	return false
}

func (j *job) push(ctx context.Context, s Source, chunks []int, again bool) error {
	first, want := chunks[0], []byte{}
	for _, i := range chunks {
		for len(want) <= (i-first)/8 {
			want = append(want, 0)
		}
		want[(i-first)/8] |= 1 << ((i - first) % 8)
	}
	if r, ok := s.(Repairer); ok && (again || j.alone) {
		return r.Repair(ctx, j.ref.Digest, first, want, j.alone)
	}
	return s.Request(ctx, j.ref.Digest, first, want)
}

// leave turns from the shared topic when it brings too much: what was asked for
// there is asked for again, alone.
func (j *job) leave() {
	if _, ok := j.f.cfg.Source.(Repairer); !ok || j.alone || !j.crowded() {
		return
	}
	j.alone = true
	j.f.cfg.Logger.Info("fetch: the shared topic brings too much; asking alone", "blob", j.ref.Digest, "bytes", j.got)
	if j.reading == nil && j.out > 0 {
		j.giveUp()
		j.listen = time.Now()
	}
}

// crowded says that the shared topic brings more than it should: over 1.2
// times the blob, or more than the rate allows.
func (j *job) crowded() bool {
	return j.got > max(j.ref.Size+j.ref.Size/5, j.ref.Size+2*wire.ChunkSize) || j.f.pace.over()
}
