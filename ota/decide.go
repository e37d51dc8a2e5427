package ota

import (
	"context"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// maxRetryPause bounds the pause before a release is tried again.
const maxRetryPause = time.Hour

func targetOf(o Order) *Target {
	p := o.Plan()
	return &Target{
		Plan: p.ID, Serial: p.Serial, Release: p.Release, Manifest: o.Ref(),
		Frames: p.Probation.Frames, Seconds: p.Probation.Seconds,
	}
}

// consider compares what the device should run with what it does, and begins,
// ends or leaves an update. It is cheap and may be called at any time.
func (u *Updater) consider(ctx context.Context) {
	o, err := u.cfg.Trust.Select(u.cfg.Device, u.cfg.Labels)
	if err != nil {
		// Nothing new begins. What is under way asks again before it activates.
		u.complain(err)
		return
	}
	idle := u.state.Step == wire.Idle
	switch {
	case o == nil && idle:
	case o == nil:
		u.apply(ctx, Input{Kind: Cancel})
	case idle:
		u.begin(ctx, o)
	case targetOf(o).same(u.state.Target):
		u.order = o
	case u.isActive(targetOf(o)):
		u.apply(ctx, Input{Kind: Cancel, Message: "the plan names the release that was active before"})
	default:
		u.apply(ctx, Input{Kind: Offer, Target: targetOf(o)})
	}
}

// begin starts an update, unless the device runs the release already or has
// reason not to try it now.
func (u *Updater) begin(ctx context.Context, o Order) {
	t := targetOf(o)
	if u.isActive(t) {
		return
	}
	if r, ok := u.state.Refusal(t); ok {
		if r.ForGood() {
			return
		}
		if u.waiting != nil && *u.waiting == *refusalKey(t) {
			if left := time.Until(u.notBefore); left > 0 {
				u.retry.Reset(left)
				return
			}
		}
	}
	u.waiting = nil
	u.order = o
	u.apply(ctx, Input{Kind: Offer, Target: t})
}

func (u *Updater) isActive(t *Target) bool {
	a := u.active // only the loop writes it
	return a != nil && a.Release.Path == t.Release && a.Release.Digest == t.Manifest.Digest
}

type tryKey struct {
	plan   string
	serial int64
	digest string
}

func refusalKey(t *Target) *tryKey { return &tryKey{t.Plan, t.Serial, t.Manifest.Digest} }

// postpone sets when the release that just ended may be tried again. The pause
// is kept in memory alone: a restart may try at once, and tries are counted.
func (u *Updater) postpone(t *Target) {
	r, ok := u.state.Refusal(t)
	if !ok || r.ForGood() {
		return
	}
	pause := u.cfg.RetryPause
	for i := 1; i < r.Tries && pause < maxRetryPause; i++ {
		pause *= 2
	}
	pause = min(pause, maxRetryPause)
	u.waiting, u.notBefore = refusalKey(t), time.Now().Add(pause)
	u.retry.Reset(pause)
}

// apply lets Next decide and does what it says.
func (u *Updater) apply(ctx context.Context, in Input) {
	in.Now = u.cfg.Now().UnixMilli()
	if b := u.budget.Load(); b != nil {
		in.Received = b.Used()
	}
	before := u.state
	next, acts := Next(before, in)
	if acts == nil {
		return
	}
	u.lapse.Stop()
	if before.Step == wire.Commit && next.Step == wire.Idle {
		u.adopt()
	}
	for _, a := range acts {
		switch a.Do {
		case DoStop:
			u.stop()
		case DoJournal:
			if err := u.journal(next); err != nil && !u.mayGoOn(next) {
				u.setState(next)
				u.apply(ctx, Input{Kind: Fail, Reason: asRefusal(err).Reason, Message: "journal: " + err.Error()})
				return
			}
			u.setState(next)
		case DoReport:
			u.log(a.Event)
			u.cfg.OnEvent(a.Event)
		case DoWork:
			u.work(ctx)
		case DoClean:
			u.finish(before.Target)
			u.consider(ctx)
		}
	}
}

// mayGoOn says whether a state may be entered that could not be journalled:
// one on the way back or at the end, since a restart from the state before
// leads there again.
func (u *Updater) mayGoOn(s State) bool { return s.Step == wire.Idle || s.Step == wire.Rollback }

func (u *Updater) journal(s State) error {
	if err := u.cfg.Store.SaveJournal(s.encode()); err != nil {
		u.cfg.Logger.Error("ota: journal", "state", s.Step, "err", err)
		return err
	}
	return nil
}

func (u *Updater) setState(s State) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.state = s
}

func (u *Updater) log(ev wire.Event) {
	u.cfg.Logger.Info("ota: update", "release", ev.Release, "plan", ev.Plan, "from", ev.From, "to", ev.To,
		"outcome", ev.Outcome, "reason", ev.Reason, "message", ev.Message)
}

// finish ends what belongs to one update.
func (u *Updater) finish(t *Target) {
	u.order = nil
	u.budget.Store(nil)
	u.done.Store(0)
	u.size.Store(0)
	u.postpone(t)
	u.tidy()
}

// tidy removes what nothing names, between updates. After a fetch that will be
// tried again what has arrived stays.
func (u *Updater) tidy() {
	if n := len(u.state.Refusals); n > 0 && u.state.Last.Outcome != wire.Committed {
		if r := u.state.Refusals[n-1]; r.Reason == wire.ReasonFetch && !r.ForGood() && u.state.Last.Release == r.Release {
			return
		}
	}
	if _, err := u.cfg.Store.GC(); err != nil {
		u.cfg.Logger.Warn("ota: some files could not be removed", "err", err)
	}
}
