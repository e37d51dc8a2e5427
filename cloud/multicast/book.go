package multicast

import (
	"fmt"
	"slices"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// Bounds on what a book remembers.
const (
	maxBlobs   = 256
	maxJoined  = 1 << 16 // devices of a blob
	maxRepairs = 1 << 14 // chunks waiting for single devices
	maxPerOne  = 256     // of these, for one device
	leastBurst = 8       // chunks of the smallest bucket
)

// flowGrace is for how long after a chunk of a blob was sent a request may still
// be one that was made before.
const flowGrace = time.Second

// perMissing is how many times longer than for one that may follow is waited for
// devices that will.
const perMissing = 5

// lately is for how long a device that asked counts as one that is updating.
const lately = 10 * time.Second

// book keeps what was asked for and what was sent, and decides what to send
// next. It does no I/O and knows no clock.
type book struct {
	times   Times
	blobs   map[string]*blob
	paid    buckets
	repairs map[string][]item    // by device
	turn    []string             // devices with repairs, the next first
	waiting int                  // repairs
	active  map[string]time.Time // devices, when they last asked for anything
	crowd   int                  // how many did so lately
	grew    time.Time            // when that was last one more
	counted time.Time
	lag     time.Duration // about how long the broker takes for a chunk
	shared  bool          // the last one sent was shared: repairs get every other turn
}

// item is a chunk to send: to one device, or, without one, to all.
type item struct {
	digest string
	size   int64
	chunk  int
	device string
	second bool
}

// blob is what is known of one blob.
type blob struct {
	digest string
	size   int64
	sent   []past // by chunk
	joined map[string]join
	first  queue     // never sent within the period
	second queue     // sent once
	flow   time.Time // when a chunk was last sent to all
	used   time.Time
}

// join is when a device began to listen, and under which boot id.
type join struct {
	boot string
	at   time.Time
}

// past is when a chunk was sent to all, the last two times.
type past struct{ last, before time.Time }

// count is how often a chunk was sent within the period.
func (p past) count(now time.Time) int {
	n := 0
	for _, t := range []time.Time{p.last, p.before} {
		if !t.IsZero() && now.Sub(t) < period {
			n++
		}
	}
	return n
}

// queue is a set of chunks that wait to be sent.
type queue struct {
	chunks map[int]bool
	since  time.Time // the first was asked for
	fresh  time.Time // one was last added, or a device last joined in
	open   bool      // it is being sent
}

func (q *queue) add(c int, now time.Time) {
	if q.chunks == nil {
		q.chunks = map[int]bool{}
	}
	if len(q.chunks) == 0 {
		q.since = now
	}
	q.chunks[c], q.fresh = true, now
}

func (q *queue) lowest() int {
	low := -1
	for c := range q.chunks {
		if low < 0 || c < low {
			low = c
		}
	}
	return low
}

func newBook(t Times) *book {
	return &book{times: t, blobs: map[string]*blob{}, paid: newBuckets(), repairs: map[string][]item{}, active: map[string]time.Time{}}
}

// pay takes chunks out of the device's bucket for a blob: twice the blob, but a
// manifest of one chunk may be lost more often; it refills within the period.
func (b *book) pay(device, digest string, size int64, chunks int, now time.Time) bool {
	burst := max(2*float64(wire.BlobRef{Size: size}.Count()), leastBurst)
	return b.paid.pay(asker{device, digest}, burst, burst/period.Seconds(), float64(chunks), now)
}

type taken struct{ coalesced, throttled int }

// take enters a request.
func (b *book) take(device string, g *wire.Get, size int64, now time.Time) (r taken, err error) {
	bl := b.blob(g.Blob, size, now)
	b.note(device, now)
	j, known := bl.joined[device]
	if !known || j.boot != g.Boot {
		if len(bl.joined) >= maxJoined {
			clear(bl.joined)
		}
		j = join{g.Boot, now}
		bl.joined[device] = j
		bl.first.fresh = now // it waits for the others
	}
	for _, c := range g.Chunks() {
		if c >= len(bl.sent) {
			return r, fmt.Errorf("%w: chunk %d of a blob of %d", wire.ErrMalformed, c, len(bl.sent))
		}
		p := bl.sent[c]
		n := p.count(now)
		switch {
		case !g.Alone && (bl.first.chunks[c] || bl.second.chunks[c]):
			if bl.second.chunks[c] {
				bl.second.fresh = now // others may still say the same
			}
			r.coalesced++
		case !g.Alone && n > 0 && b.onItsWay(bl, p, j, g.Again, now):
			r.coalesced++
		case b.queued(device, g.Blob, c):
			r.coalesced++
		case g.Alone && b.waiting >= maxRepairs, !b.pay(device, g.Blob, size, 1, now):
			r.throttled++
		case g.Alone || n >= 2:
			if !b.repair(item{g.Blob, size, c, device, false}) {
				r.throttled++
			}
		case n == 1:
			bl.second.add(c, now)
		default:
			bl.first.add(c, now)
		}
	}
	return r, nil
}

// onItsWay says whether a chunk that was sent may still reach a device that asks
// for it. A request, too, has a way behind it, as long as the broker lags: while
// a blob flows, a device that seems to come late may have listened for long.
func (b *book) onItsWay(bl *blob, p past, j join, again bool, now time.Time) bool {
	hold := b.hold(bl)
	if again { // it has seen what came after, or that nothing was on its way
		return now.Sub(p.last) < hold/2+5*b.lag
	}
	return p.last.After(j.at) || now.Sub(bl.flow) < 2*hold+10*b.lag+min(flowGrace, hold)
}

func (b *book) blob(digest string, size int64, now time.Time) *blob {
	bl := b.blobs[digest]
	if bl == nil {
		if len(b.blobs) >= maxBlobs {
			oldest := ""
			for d, o := range b.blobs {
				if oldest == "" || o.used.Before(b.blobs[oldest].used) {
					oldest = d
				}
			}
			delete(b.blobs, oldest)
		}
		bl = &blob{digest: digest, size: size, joined: map[string]join{}}
		bl.sent = make([]past, wire.BlobRef{Size: size}.Count())
		b.blobs[digest] = bl
	}
	bl.used = now
	return bl
}

func (b *book) queued(device, digest string, c int) bool {
	return slices.ContainsFunc(b.repairs[device], func(i item) bool { return i.digest == digest && i.chunk == c })
}

func (b *book) repair(i item) bool {
	if b.waiting >= maxRepairs || len(b.repairs[i.device]) >= maxPerOne {
		return false
	}
	if len(b.repairs[i.device]) == 0 {
		b.turn = append(b.turn, i.device)
	}
	b.repairs[i.device] = append(b.repairs[i.device], i)
	b.waiting++
	return true
}

// note counts the devices that are updating: whoever asks for one blob of a
// release will ask for the next.
func (b *book) note(device string, now time.Time) {
	if _, known := b.active[device]; !known {
		b.crowd++
		b.grew = now
	}
	if len(b.active) >= maxJoined {
		clear(b.active)
	}
	b.active[device] = now
	if now.Sub(b.counted) < time.Second {
		return
	}
	for d, at := range b.active {
		if now.Sub(at) > lately {
			delete(b.active, d)
		}
	}
	b.crowd, b.counted = len(b.active), now
}

// quiet is for how long nobody else must have asked before a gathering is over:
// longer the more devices there are.
func (b *book) quiet() time.Duration {
	return min(max(b.times.Hold, time.Duration(b.crowd)*b.times.PerDevice), 2*time.Second)
}

// hold is quiet before a chunk is sent for the second time: to wait for long to
// spare a small blob is not worth it, when the next one begins without those who
// wait.
func (b *book) hold(bl *blob) time.Duration {
	return min(b.quiet(), max(time.Duration(4*len(bl.sent)), 1)*b.times.Hold)
}

// next is what to send now, or, without anything, how long to wait for it; 0
// means that nothing waits.
func (b *book) next(now time.Time) (*item, time.Duration) {
	if b.waiting > 0 && b.shared {
		return b.nextRepair(), 0
	}
	var best *blob
	var soon time.Time
	for _, bl := range b.blobs {
		due, ok := b.due(bl, now)
		switch {
		case !ok:
		case due.After(now):
			if soon.IsZero() || due.Before(soon) {
				soon = due
			}
		case best == nil || bl.flow.Before(best.flow):
			best = bl
		}
	}
	switch {
	case best != nil:
		b.shared = true
		return best.next(), 0
	case b.waiting > 0:
		return b.nextRepair(), 0
	case soon.IsZero():
		return nil, 0
	}
	return nil, soon.Sub(now)
}

func (b *book) nextRepair() *item {
	b.shared = false
	device := b.turn[0]
	b.turn = b.turn[1:]
	i := b.repairs[device][0]
	b.waiting--
	if rest := b.repairs[device][1:]; len(rest) > 0 {
		b.repairs[device] = rest
		b.turn = append(b.turn, device)
	} else {
		delete(b.repairs, device)
	}
	return &i
}

func (bl *blob) next() *item {
	q := &bl.first
	if len(q.chunks) == 0 {
		q = &bl.second
	}
	q.open = true
	c := q.lowest()
	delete(q.chunks, c)
	return &item{bl.digest, bl.size, c, "", q == &bl.second}
}

// due is when something of a blob is to be sent to all.
func (b *book) due(bl *blob, now time.Time) (time.Time, bool) {
	quiet := b.quiet()
	if len(bl.first.chunks) == 0 && now.Sub(bl.flow) > quiet {
		bl.first.open = false
	}
	if len(bl.second.chunks) == 0 {
		bl.second.open = false
	}
	switch {
	case len(bl.first.chunks) > 0 && bl.first.open:
		return now, true
	case len(bl.first.chunks) > 0:
		return b.gathered(bl), true
	case len(bl.second.chunks) == 0:
		return now, false
	case bl.second.open:
		return now, true
	}
	hold := b.hold(bl)
	due := bl.second.fresh.Add(hold)
	if after := bl.flow.Add(hold); after.After(due) {
		due = after
	}
	return earliest(due, bl.second.since.Add(b.times.HoldMax)), true
}

// gathered is when a gathering of those who want a blob is over. Devices that
// update together ask for the same blobs one after the other: those of the crowd
// that have not asked for this one are waited for, the longer the more there are;
// when all have, only whether the crowd still grows matters.
func (b *book) gathered(bl *blob) time.Time {
	if len(bl.joined) < b.crowd {
		most := min(max(time.Duration(b.crowd)*perMissing*b.times.PerDevice, b.times.Gather), b.times.GatherMax)
		return bl.first.since.Add(most)
	}
	due := bl.first.fresh.Add(b.times.Gather)
	if still := b.grew.Add(b.quiet()); still.After(due) {
		due = still
	}
	return earliest(due, bl.first.since.Add(b.times.GatherMax))
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// sent notes that an item went out.
func (b *book) sent(i *item, took time.Duration, now time.Time) {
	b.lag = max(took, b.lag*7/8)
	bl := b.blobs[i.digest]
	if i.device != "" || bl == nil {
		return
	}
	p := &bl.sent[i.chunk]
	p.before, p.last = p.last, now
	bl.flow = now
}

// drop forgets all that waits.
func (b *book) drop() {
	for _, bl := range b.blobs {
		bl.first, bl.second = queue{}, queue{}
	}
	clear(b.repairs)
	b.turn, b.waiting = nil, 0
}
