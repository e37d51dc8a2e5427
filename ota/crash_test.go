package ota_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/anchor"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/internal/disk"
	"github.com/droverhq/drover/ota/store"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

var crashEvery = flag.Int("crash-every", 0, "of the points of the crash matrix try one in so many; 0: as many as fit")

// The crash matrix. An update passes through one seam with everything it does
// to files, folders and the anchor. At each of these operations each fault that
// can happen there happens; then the device starts again, and must
//
//   - have a whole release to run,
//   - hold metadata, reference time and security epoch no older than before,
//   - refuse the world of yesterday,
//   - and bring the update to the end it has without a fault, with nothing
//     left over.

// flow is an update, from a base to its end.
type flow struct {
	name    string
	cloud   *cloud
	base    func() *board
	floors  floors      // of the base
	before  *repo.World // yesterday's; nil: none
	world   *repo.World
	machine func() *machine
	release string // that the update is about
	runs    []string
	outcome wire.Outcome
	after   *repo.World // of v3, which must commit after a release that was not
}

// board is what outlives the program: the disk, and a TPM beside it or a file
// anchor on it.
type board struct {
	disk *disk.Disk
	tpm  *counter // nil: the epoch is in files
	boot int
}

// restarted is the board as the next start finds it.
func (b *board) restarted(m disk.Mode) *board {
	n := &board{disk: b.disk.AfterCut(m), boot: b.boot + 1}
	if b.tpm != nil {
		n.tpm = &counter{d: n.disk, nv: b.tpm.nv}
	}
	return n
}

// counter is a TPM's counter on the disk's power supply. What it counted is
// kept, whatever becomes of the answer.
type counter struct {
	d  *disk.Disk
	nv uint64
}

var errAnswer = errors.New("the session's HMAC does not fit the answer")

func (c *counter) Epoch() (e uint64, err error) {
	err = c.d.Do("NV_Read", func(flip bool) error {
		if flip {
			return errAnswer
		}
		e = c.nv
		return nil
	})
	return e, err
}

func (c *counter) Raise(to uint64) error {
	for {
		e, err := c.Epoch()
		if err != nil || e >= to {
			return err
		}
		if err := c.d.Do("NV_Increment", func(flip bool) error {
			c.nv++
			if flip {
				return errAnswer
			}
			return nil
		}); err != nil {
			return err
		}
	}
}

// folder is the anchor's folder on the disk.
type folder struct{ d *disk.Disk }

const anchorDir = "anchor"

func (f folder) Open(name string, flag int) (anchor.FolderFile, error) {
	file, err := f.d.Open(path.Join(anchorDir, name), flag)
	if err != nil {
		return nil, err
	}
	return file, nil
}

func (f folder) Rename(from, to string) error {
	return f.d.Rename(path.Join(anchorDir, from), path.Join(anchorDir, to))
}
func (f folder) Remove(name string) error { return f.d.Remove(path.Join(anchorDir, name)) }
func (f folder) Sync() error              { return f.d.SyncDir(anchorDir) }

// witness remembers the highest epoch that the anchor ever vouched for.
type witness struct {
	ota.Anchor
	mu   sync.Mutex
	best uint64
}

func (w *witness) note(e uint64, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.best = max(w.best, e)
	}
	return err
}

func (w *witness) Epoch() (uint64, error) {
	e, err := w.Anchor.Epoch()
	return e, w.note(e, err)
}

func (w *witness) Raise(to uint64) error { return w.note(to, w.Anchor.Raise(to)) }

func (w *witness) epoch() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.best
}

// booted is one run of the program on a board.
type booted struct {
	*device
	board  *board
	store  *store.Store
	trust  *trust.Client
	anchor *witness
}

// boot opens a device without running it.
func boot(t *testing.T, c *cloud, b *board, m *machine) (*booted, error) {
	d := &device{t: t, cloud: c, disk: b.disk, m: m}
	st, err := store.Open(b.disk)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	tc, err := trust.Open(trust.Options{
		Store: st, Root: c.Root(), BuildTime: repo.Start().AddDate(0, -1, 0), BootID: fmt.Sprint("boot-", b.boot),
		Boottime: func() time.Duration { return time.Since(began) },
	})
	if err != nil {
		return nil, err
	}
	w := &witness{Anchor: b.tpm}
	if b.tpm == nil {
		if err := b.disk.MkdirAll(anchorDir); err != nil {
			return nil, err
		}
		if w.Anchor, err = anchor.OpenFileIn(folder{b.disk}); err != nil {
			return nil, err
		}
	}
	d.Updater, err = ota.New(ota.Config{
		Device: "cam-1", Capabilities: []string{"deltas"}, Store: st, Trust: ota.FromTrust(tc),
		Fetcher: fetch.New(fetch.Config{Source: d}), Prober: m, Activator: m, Health: m, Anchor: w, Inspect: m.Inspect,
		OnEvent: func(ev wire.Event) {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.events = append(d.events, ev)
		},
	})
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers, m.warm = "", ""
	if a, ok := d.Active(); ok {
		m.answers = a.Release.Path
	}
	return &booted{d, b, st, tc, w}, nil
}

// floors are what must never go back.
type floors struct {
	versions map[string]int64
	clock    int64 // Unix seconds
	epoch    uint64
}

// and is the higher of both.
func (f floors) and(o floors) floors {
	v := maps.Clone(o.versions)
	for role, n := range f.versions {
		if v == nil {
			v = map[string]int64{}
		}
		v[role] = max(v[role], n)
	}
	return floors{v, max(f.clock, o.clock), max(f.epoch, o.epoch)}
}

func (b *booted) floors(t *testing.T) floors {
	t.Helper()
	_, raw, err := b.store.LoadTrust()
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) == 0 {
		return floors{epoch: b.anchor.epoch()}
	}
	var f struct {
		Versions map[string]int64 `json:"versions"`
		Clock    int64            `json:"clock"`
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return floors{f.Versions, f.Clock, b.anchor.epoch()}
}

// holds fails the test when something went back.
func (b *booted) holds(t *testing.T, was floors) {
	t.Helper()
	now := b.floors(t)
	for role, v := range was.versions {
		if now.versions[role] < v {
			t.Errorf("metadata: %s was at %d, the floor now is %d", role, v, now.versions[role])
		}
	}
	if now.clock < was.clock || b.trust.Status().RefTime.Unix() < was.clock {
		t.Errorf("time: was %d, the floor now is %d and it is %d", was.clock, now.clock, b.trust.Status().RefTime.Unix())
	}
	if e, err := b.anchor.Epoch(); err != nil || e < was.epoch {
		t.Errorf("epoch: was %d, now is %d: %v", was.epoch, e, err)
	}
}

// ends lets time pass until the update about a release is over and nothing
// about it will be tried again, or until that long is over.
func (b *booted) ends(release string, limit time.Duration) (wire.UpdateStatus, bool) {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Second) {
		synctest.Wait()
		s := b.Status()
		passes := s.Reason == wire.ReasonFetch || s.Reason == wire.ReasonSpace || s.Reason == wire.ReasonInternal
		if s.State == wire.Idle && s.Release == release && !passes {
			return s, true
		}
		if b.disk.IsCut() || !time.Now().Before(end) {
			return s, false
		}
	}
}

// point is one place in the matrix.
type point struct {
	at    int
	op    disk.Op
	fault disk.Fault
	mode  disk.Mode
}

func (p point) String() string {
	return fmt.Sprintf("%d-%s-%s-%s-%d", p.at, p.op.Kind, path.Base(p.op.Name), p.fault, p.mode)
}

// crash tries points, one in each run of the program, and says whether the
// first of the faults happened.
func (f *flow) crash(t *testing.T, points ...point) bool {
	next, was := f.base(), f.floors
	for i, p := range points {
		hit := false
		if was, hit = f.suffer(t, next, was, p); !hit && i == 0 {
			return false
		}
		next = next.restarted(p.mode)
	}
	m := f.machine()
	d, err := boot(t, f.cloud, next, m)
	if err != nil {
		t.Errorf("it does not start any more: %v", err)
		return true
	}
	if !slices.Contains(f.runs, m.answering()) {
		t.Errorf("after the restart %q answers", m.answering())
	}
	d.mustRun(m.answering())
	d.holds(t, was)
	d.run()
	defer d.stop()
	if f.before != nil {
		d.offer(f.before) // a replayed world
		d.holds(t, was)
	}
	d.offer(f.world)
	if s, over := d.ends(f.release, 12*time.Hour); !over || s.Outcome != f.outcome {
		t.Errorf("the next attempt ended %+v", s)
	}
	last := f.runs[len(f.runs)-1]
	d.mustRun(last)
	if f.after != nil {
		m.probe, m.judge = nil, nil
		d.offer(f.after)
		if s, over := d.ends(v3, 12*time.Hour); !over || s.Outcome != wire.Committed {
			t.Errorf("the release after it ended %+v", s)
		}
		d.mustRun(v3)
	}
	d.holds(t, was)
	d.leavesNothing(t)
	if t.Failed() {
		t.Log(d.history())
	}
	return true
}

// leavesNothing looks for files that nothing names any more.
func (b *booted) leavesNothing(t *testing.T) {
	t.Helper()
	slots := b.store.Slots()
	named := map[string]bool{}
	for _, r := range []*store.Release{slots.Active, slots.Previous, slots.Candidate} {
		if r != nil {
			named["blobs/"+r.Manifest], named["blobs/"+r.Model], named["blobs/"+r.Golden] = true, true, true
		}
	}
	for _, n := range b.disk.Names() {
		switch path.Dir(n) {
		case "blobs", "parts":
			if !named[n] {
				t.Errorf("%s is left over", n)
			}
		case ".":
			if path.Ext(n) == ".tmp" {
				t.Errorf("%s is left over", n)
			}
		}
	}
}

// suffer runs the update into the fault and returns what must not go back from
// then on, and whether the fault happened.
func (f *flow) suffer(t *testing.T, b *board, was floors, p point) (_ floors, hit bool) {
	b.disk.Inject(p.at, p.fault)
	m := f.machine()
	d, err := boot(t, f.cloud, b, m)
	if err != nil { // the program ends; whoever supervises it starts it again
		if b.disk.Injected() == nil {
			t.Fatal(err)
		}
		return was, true
	}
	d.run()
	d.offer(f.world)
	limit := time.Hour // far more than a passing fault may cost
	if p.fault == disk.Dead || p.fault == disk.Full {
		limit = 2 * time.Minute
	}
	_, over := d.ends(f.release, limit)
	hit = b.disk.Injected() != nil
	if hit && !p.fault.Cuts() && p.fault != disk.Dead && !slices.Contains(f.runs, m.answering()) {
		t.Errorf("during the fault %q answers", m.answering())
	}
	// Whether a new anchor was begun before is found out at the start alone.
	newAnchor := f.before == nil && path.Dir(p.op.Name) == anchorDir
	if hit && !over && p.fault != disk.Dead && p.fault != disk.Full && !b.disk.IsCut() && !newAnchor {
		t.Errorf("a fault that passed stopped the update: %+v %v", d.Status(), d.history())
	}
	if now := d.floors(t); hit {
		was = was.and(now)
	}
	b.disk.AfterCut(p.mode) // nothing that the stop would still write counts
	d.stop()
	return was, hit
}

// points lists the matrix of a flow.
func (f *flow) points(t *testing.T) (all []point) {
	t.Helper()
	var trace []disk.Op
	synctest.Test(t, func(t *testing.T) {
		b := f.base()
		m := f.machine()
		d, err := boot(t, f.cloud, b, m)
		if err != nil {
			t.Fatal(err)
		}
		d.run()
		d.offer(f.world)
		if s, over := d.ends(f.release, time.Hour); !over || s.Outcome != f.outcome {
			t.Fatalf("%s without a fault: %+v %v", f.name, s, d.history())
		}
		d.stop()
		trace = b.disk.Trace()
	})
	if len(trace) < 100 {
		t.Fatalf("%s: only %d operations", f.name, len(trace))
	}
	for i, op := range trace {
		for fault := range disk.NumFaults {
			if !fault.Fits(op.Kind) {
				continue
			}
			modes := []disk.Mode{disk.Lost}
			switch fault {
			case disk.CutBefore, disk.CutAfter:
				modes = []disk.Mode{disk.Mode((i + int(fault)) % int(disk.NumModes))}
				if *crashEvery == 1 {
					modes = []disk.Mode{disk.Lost, disk.Kept, disk.NamesOnly}
				}
			case disk.CutTorn:
				modes = []disk.Mode{disk.Kept}
			}
			for _, m := range modes {
				all = append(all, point{i + 1, op, fault, m})
			}
		}
	}
	return all
}

// flows are the updates of the matrix.
func flows(t *testing.T) []*flow {
	crash := func(context.Context, ota.Candidate) error {
		return &ota.Refusal{Reason: wire.ReasonCrash, Message: "3 crashes"}
	}
	good := func() *machine { return &machine{} }
	epoch := func(e uint64) func(*wire.Manifest) { return func(m *wire.Manifest) { m.Epoch = e } }
	var all []*flow
	add := func(f *flow, tpm bool) {
		f.base = f.based(t, tpm)
		all = append(all, f)
	}
	c := newCloud(t)
	first := c.plan(c.release(t, 1, nil))
	second := c.plan(c.release(t, 2, epoch(2)))
	third := c.plan(c.release(t, 3, epoch(2)))
	add(&flow{name: "first", cloud: c, world: first, machine: good, release: v1, runs: []string{"", v1}, outcome: wire.Committed}, false)
	add(&flow{name: "commit", cloud: c, before: first, world: second, machine: good, release: v2, runs: []string{v1, v2}, outcome: wire.Committed}, false)
	add(&flow{name: "rollback", cloud: c, before: first, world: second, machine: func() *machine { return &machine{judge: crash} },
		release: v2, runs: []string{v1}, outcome: wire.RolledBack, after: third}, true)
	add(&flow{name: "refusal", cloud: c, before: first, world: second, machine: func() *machine { return &machine{probe: crash} },
		release: v2, runs: []string{v1}, outcome: wire.Refused, after: third}, false)

	dc := newCloud(t)
	first = dc.plan(dc.release(t, 1, nil))
	second = dc.plan(dc.release(t, 2, func(m *wire.Manifest) {
		dc.withDelta(modelBytes(1), makeDelta(t, modelBytes(1), moved(modelBytes(1))))(m)
		m.Epoch = 3
	}))
	add(&flow{name: "delta", cloud: dc, before: first, world: second, machine: good, release: v2, runs: []string{v1, v2}, outcome: wire.Committed}, true)
	return all
}

// based gives boards on which the flow can begin.
func (f *flow) based(t *testing.T, tpm bool) func() *board {
	t.Helper()
	begin := &board{disk: disk.New(roomy)}
	if tpm {
		begin.tpm = &counter{d: begin.disk}
	}
	if f.before != nil {
		synctest.Test(t, func(t *testing.T) {
			d, err := boot(t, f.cloud, begin, &machine{})
			if err != nil {
				t.Fatal(err)
			}
			d.run()
			d.offer(f.before)
			if s, over := d.ends(v1, time.Hour); !over || s.Outcome != wire.Committed {
				t.Fatalf("version 1: %+v", s)
			}
			f.floors = d.floors(t)
			d.stop()
		})
	}
	return func() *board { return begin.restarted(disk.Lost) }
}

func TestCrashMatrix(t *testing.T) {
	const workers = 8
	began := time.Now()
	var points, bricks atomic.Int64
	kinds := map[string]*atomic.Int64{}
	for f := range disk.NumFaults {
		kinds[f.String()] = new(atomic.Int64)
	}
	t.Run("points", func(t *testing.T) {
		for _, f := range flows(t) {
			all := f.points(t)
			every := *crashEvery
			if every == 0 {
				every = crashDefault(testing.Short())
			}
			for w := range workers {
				t.Run(fmt.Sprintf("%s-%d", f.name, w), func(t *testing.T) {
					t.Parallel()
					for i := w * every; i < len(all); i += workers * every {
						p := all[i]
						ok := t.Run(p.String(), func(t *testing.T) {
							synctest.Test(t, func(t *testing.T) {
								if f.crash(t, p) {
									points.Add(1)
									kinds[p.fault.String()].Add(1)
								}
							})
						})
						if !ok {
							bricks.Add(1)
						}
					}
				})
			}
		}
	})
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		t.Logf("%-10s %d", k, kinds[k].Load())
		if kinds[k].Load() == 0 {
			t.Errorf("no point with %s", k)
		}
	}
	fmt.Fprintf(os.Stdout, "crash-matrix points=%d bricks=%d seconds=%.1f\n", points.Load(), bricks.Load(), time.Since(began).Seconds())
}

// TestCrashDuringRecovery lets the power go a second time, while the device
// recovers from the first.
func TestCrashDuringRecovery(t *testing.T) {
	many := 60
	if testing.Short() || crashDefault(true) > 50 {
		many = 20
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	cut := func(most int) point {
		p := point{at: 1 + rng.IntN(most), fault: disk.CutBefore + disk.Fault(rng.IntN(2)), mode: disk.Mode(rng.IntN(int(disk.NumModes)))}
		if rng.IntN(4) == 0 {
			p.fault = disk.Flip
		}
		return p
	}
	hit := 0
	for _, f := range flows(t) {
		for range many {
			first, second := cut(200), cut(120)
			t.Run(fmt.Sprint(f.name, "/", first, "/", second), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					if f.crash(t, first, second) {
						hit++
					}
				})
			})
		}
	}
	if hit < many {
		t.Errorf("only %d of %d first faults happened", hit, 5*many)
	}
	fmt.Fprintf(os.Stdout, "crash-recovery points=%d\n", hit)
}
