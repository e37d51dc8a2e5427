package ota

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/fetch"
)

// Updater runs the updates of one device. Run owns the state; all other
// methods may be called from any goroutine and never block on it.
type Updater struct {
	cfg  Config
	mail *mailbox
	done atomic.Int64 // bytes here, of the fetch under way
	size atomic.Int64 // bytes in all
	// budget is that of the update under way; nil between updates.
	budget atomic.Pointer[fetch.Budget]

	mu     sync.Mutex // guards what other goroutines see
	state  State      // written by the loop alone
	active *Candidate // the committed release; nil: none that can run

	// only the loop
	boot      []wire.Event // what New found, to be told by Run
	order     Order        // the newest that was selected for the update under way
	job       *job         // under way, or nil
	lapse     *time.Timer  // deadline of the state
	retry     *time.Timer
	waiting   *tryKey   // what may not be tried again before notBefore
	notBefore time.Time // monotonic
	said      string    // the last complaint about trust, so that it is told once
}

// New opens what the store holds: it decides which release can run, by digest,
// and where the last update stood. It reads the active model once. Damage is no
// error; it is healed, and told as an event by Run.
func New(cfg Config) (*Updater, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	u := &Updater{cfg: cfg, mail: newMailbox()}
	u.open()
	return u, nil
}

// OfferCurrent hands over a payload of trust/current. It never blocks; of
// several that wait the newest counts. The bytes must not be changed
// afterwards, nor those of the other offers.
func (u *Updater) OfferCurrent(payload []byte) { u.mail.putCurrent(payload) }

// OfferRole hands over a payload of trust/{role}/{version}. It never blocks.
func (u *Updater) OfferRole(role string, version int64, raw []byte) {
	u.mail.putRole(roleOffer{role, version, raw})
}

// OfferChunk hands over a payload of a blob topic. It never blocks.
func (u *Updater) OfferChunk(digest string, chunk int, data []byte) {
	u.cfg.Fetcher.Deliver(digest, chunk, data)
}

// SetLabels changes the labels by which plans select this device. It never
// blocks.
func (u *Updater) SetLabels(labels map[string]string) {
	l := maps.Clone(labels)
	if l == nil {
		l = map[string]string{}
	}
	u.mail.putLabels(l)
}

// Active is the release to run, whose files were found whole by New; ok is
// false when the device has none. During a trial it is still the committed one.
func (u *Updater) Active() (c Candidate, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active == nil {
		return Candidate{}, false
	}
	return *u.active, true
}

// State is a copy of the whole state, for display.
func (u *Updater) State() State {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.state
}

// Status is where the update stands, or how the last one ended.
func (u *Updater) Status() wire.UpdateStatus {
	s := u.State()
	if s.Step == wire.Idle {
		return s.Last
	}
	st := wire.UpdateStatus{State: s.Step, Plan: s.Target.Plan, Release: s.Target.Release, Reason: s.Reason, Message: s.Message}
	if s.Step == wire.Fetch || s.Step == wire.Verify {
		st.Done, st.Total = u.done.Load(), u.size.Load()
	}
	return st
}

// Releases are the slots as a twin shows them: active is the release that
// answers, which on trial is the candidate; previous is the one a rollback
// would return to.
func (u *Updater) Releases() (active, previous, candidate *wire.ReleaseRef) {
	slots, step := u.cfg.Store.Slots(), u.State().Step
	active, previous, candidate = refOf(slots.Active), refOf(slots.Previous), refOf(slots.Candidate)
	if candidate != nil && (step == wire.Probation || step == wire.Commit) {
		return candidate, active, nil
	}
	return active, previous, candidate
}

// Dropped counts trust offers that were dropped because newer ones came before
// the loop took them.
func (u *Updater) Dropped() uint64 { return u.mail.droppedCount() }

// FetchStats counts the chunks that came in.
func (u *Updater) FetchStats() fetch.Stats { return u.cfg.Fetcher.Stats() }

// Run takes the update up where it stood and works until ctx ends; it returns
// when the work under way has ended too. It returns ctx's error. The caller
// starts Active's release itself, before or after. Run is called once.
func (u *Updater) Run(ctx context.Context) error {
	u.lapse, u.retry = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	u.lapse.Stop()
	u.retry.Stop()
	defer u.lapse.Stop()
	defer u.retry.Stop()
	for _, ev := range u.boot {
		u.cfg.OnEvent(ev)
	}
	u.boot = nil
	u.resume(ctx)
	for {
		select {
		case <-ctx.Done():
			u.shutdown()
			return ctx.Err()
		case <-u.mail.wake:
			u.drain(ctx)
		case in := <-u.job.finished():
			u.job.cancel()
			u.job = nil
			if ctx.Err() != nil {
				u.shutdown() // the work may have failed of that alone: it is done again
				return ctx.Err()
			}
			if in.Kind == Fail {
				in = u.reconciled(in)
			}
			u.apply(ctx, in)
		case <-u.lapse.C:
			u.apply(ctx, u.reconciled(Input{Kind: Deadline}))
		case <-u.retry.C:
			u.refresh()
			u.consider(ctx)
		}
	}
}

// resume goes on with what the journal holds.
func (u *Updater) resume(ctx context.Context) {
	u.refresh()
	if u.state.Step == wire.Idle {
		u.tidy() // the end of the last update may have been cut short
		u.consider(ctx)
		return
	}
	in := u.reconciled(Input{Kind: Restart, Message: "the program was restarted"})
	if o, err := u.cfg.Trust.Select(u.cfg.Device, u.cfg.Labels); err == nil && o != nil && targetOf(o).same(u.state.Target) {
		u.order = o
	} else if u.state.Step == wire.Verify {
		// Without an order nothing can be verified. It comes again by itself.
		in = Input{Kind: Cancel, Message: "restarted before the manifest was verified, and no plan is at hand"}
	}
	u.apply(ctx, in)
	u.consider(ctx)
}

// reconciled turns what interrupts a commit into its success, when the slots
// already moved: after that moment there is no way back.
func (u *Updater) reconciled(in Input) Input {
	if u.state.Step != wire.Commit {
		return in
	}
	a := u.cfg.Store.Slots().Active
	if a != nil && a.Manifest == u.state.Target.Manifest.Digest && a.Path == u.state.Target.Release {
		return Input{Kind: Done, Message: in.Message}
	}
	return in
}

// shutdown stops the work and notes that the stop was in order.
func (u *Updater) shutdown() {
	u.stop()
	if u.state.Step == wire.Idle {
		return
	}
	s := u.state
	s.Clean = true
	if err := u.cfg.Store.SaveJournal(s.encode()); err != nil {
		u.cfg.Logger.Warn("ota: an orderly stop will count as a restart", "err", err)
	}
}

// drain takes the metadata that came.
func (u *Updater) drain(ctx context.Context) {
	if l := u.mail.takeLabels(); l != nil {
		u.cfg.Labels = l
	}
	current, roles := u.mail.take()
	for _, r := range roles {
		u.complain(u.cfg.Trust.OfferRole(r.role, r.version, r.raw))
	}
	if current != nil {
		u.complain(u.cfg.Trust.OfferCurrent(current))
	}
	u.refresh()
	u.consider(ctx)
}

// storeRetry is how soon metadata that could not be stored is tried again:
// nobody may send it a second time.
const storeRetry = 10 * time.Second

func (u *Updater) refresh() {
	err := u.cfg.Trust.Refresh()
	if err == nil || errors.Is(err, ErrWait) {
		return
	}
	u.complain(err)
	if mayPass(asRefusal(err).Reason) {
		u.retry.Reset(min(storeRetry, u.cfg.RetryPause))
	}
}

// complain tells of refused metadata, once per kind in a row.
func (u *Updater) complain(err error) {
	if err == nil {
		return
	}
	r := asRefusal(err)
	msg := clip(r.Message)
	if msg == u.said {
		return
	}
	u.said = msg
	u.cfg.OnEvent(wire.Event{Kind: wire.EventTrust, Reason: r.Reason, Message: msg})
}
