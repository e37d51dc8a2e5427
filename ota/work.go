package ota

import (
	"context"
	"errors"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/store"
)

// grace is how long work may take to end after it was cancelled. Work that
// takes longer breaks its contract; it is left behind, so that the update goes
// on and the device with it.
const grace = 10 * time.Second

// job is the work of one state. Its goroutine sends one result and ends.
type job struct {
	step   wire.UpdateState
	cancel context.CancelFunc
	result chan Input // capacity 1
}

// finished is where the result comes; nil, which never receives, without a job.
func (j *job) finished() <-chan Input {
	if j == nil {
		return nil
	}
	return j.result
}

// work begins the work of the state just entered, under its deadline.
func (u *Updater) work(ctx context.Context) {
	s := u.state
	if s.Step == wire.Activate {
		// The last moment before anything changes: is it still wanted?
		if err := u.stillWanted(s.Target); err != nil {
			r := asRefusal(err)
			u.apply(ctx, Input{Kind: Fail, Reason: r.Reason, Message: r.Message})
			return
		}
	}
	u.lapse.Reset(DeadlineOf(s))
	wctx, cancel := context.WithCancel(ctx)
	j := &job{step: s.Step, cancel: cancel, result: make(chan Input, 1)}
	u.job = j
	step, order, active := u.stepOf(s.Step), u.order, u.active
	go func() {
		in, err := step(wctx, task{s, order, active})
		if err != nil {
			r := asRefusal(err)
			in = Input{Kind: Fail, Reason: r.Reason, Message: r.Message}
		}
		j.result <- in
	}()
}

// stop ends the work under way and waits for it.
func (u *Updater) stop() {
	if u.job == nil {
		return
	}
	u.job.cancel()
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-u.job.result:
	case <-t.C:
		u.cfg.Logger.Error("ota: work does not end after it was cancelled and is left behind", "state", u.job.step)
	}
	u.job = nil
}

// stillWanted says whether a plan that is fresh and well signed still names the
// target.
func (u *Updater) stillWanted(t *Target) error {
	o, err := u.cfg.Trust.Select(u.cfg.Device, u.cfg.Labels)
	switch {
	case err != nil:
		return err
	case o == nil:
		return refusef(wire.ReasonSuperseded, "no plan names this device any more")
	case !targetOf(o).same(t):
		return refusef(wire.ReasonSuperseded, "plan %s names %s instead", o.Plan().ID, o.Plan().Release)
	}
	return nil
}

// task is what the work of a state knows: values, none of which the loop
// changes.
type task struct {
	state  State
	order  Order
	active *Candidate
}

func (u *Updater) stepOf(s wire.UpdateState) func(context.Context, task) (Input, error) {
	switch s {
	case wire.Verify:
		return u.doVerify
	case wire.Fetch:
		return u.doFetch
	case wire.Assemble:
		return u.doAssemble
	case wire.Check:
		return u.doCheck
	case wire.Probe:
		return u.doProbe
	case wire.Shadow: // no plan asks for it yet
		return func(context.Context, task) (Input, error) { return Input{Kind: Done}, nil }
	case wire.Activate:
		return u.doActivate
	case wire.Probation:
		return u.doProbation
	case wire.Commit:
		return u.doCommit
	case wire.Rollback:
		return u.doRollback
	}
	panic("internal error: ota: no work for state " + string(s))
}

// asRefusal finds the reason of an error.
func asRefusal(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return &Refusal{Reason: orInternal(r.Reason), Message: r.Message, Err: err}
	}
	reason := wire.ReasonInternal
	for _, k := range []struct {
		kind   error
		reason wire.Reason
	}{
		{store.ErrNoSpace, wire.ReasonSpace},
		{store.ErrDigest, wire.ReasonDigest},
		{fetch.ErrStalled, wire.ReasonFetch},
		{fetch.ErrBudget, wire.ReasonFetch},
		{wire.ErrMalformed, wire.ReasonMalformed},
		{wire.ErrTooLarge, wire.ReasonMalformed},
		{wire.ErrVersion, wire.ReasonMalformed},
	} {
		if errors.Is(err, k.kind) {
			reason = k.reason
			break
		}
	}
	return &Refusal{Reason: reason, Message: err.Error(), Err: err}
}
