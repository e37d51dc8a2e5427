package ota

import (
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// InputKind is what can happen to an update.
type InputKind int

// The inputs.
const (
	Offer    InputKind = iota // a verified plan names another release
	Cancel                    // no verified plan names this release any more
	Done                      // the state's work is done
	Fail                      // the state's work was refused, with a reason
	NoDelta                   // the delta does not give the model: the full one is needed
	Deadline                  // the state took too long
	Restart                   // the program started and found this state in the journal
	Exceeded                  // the restart was one too many
	numInputs
)

// String is the input's name.
func (k InputKind) String() string {
	return [numInputs]string{"offer", "cancel", "done", "fail", "no delta", "deadline", "restart", "restarts exceeded"}[k]
}

// edge is where an input leads. The zero edge refuses the input: nothing
// changes. An edge to idle has an outcome; without a reason of its own it takes
// that of the input, or of the rollback it ends.
type edge struct {
	to      wire.UpdateState
	outcome wire.Outcome
	reason  wire.Reason
}

// row is one state: its bounds and where each input leads.
type row struct {
	step     wire.UpdateState
	deadline time.Duration // 0: none (idle), or the plan's (probation)
	restarts int           // allowed; on trial MaxTrials counts instead
	trial    bool          // the candidate answers the frames, or may
	on       [numInputs]edge
}

// refuse ends an update whose release never was active.
func refuse(r wire.Reason) edge { return edge{wire.Idle, wire.Refused, r} }

func to(s wire.UpdateState) edge { return edge{to: s} }

// back returns to the previous release.
func back(r wire.Reason) edge { return edge{wire.Rollback, "", r} }

// table is everything an update can do, in the order of its states.
//
//nolint:gochecknoglobals // a literal that is never written
var table = [...]row{
	{step: wire.Idle, on: [numInputs]edge{
		Offer: to(wire.Verify),
	}},
	{step: wire.Verify, deadline: 30 * time.Minute, restarts: 20, on: [numInputs]edge{
		Offer: refuse(wire.ReasonSuperseded), Cancel: refuse(wire.ReasonSuperseded), Done: to(wire.Fetch), Fail: refuse(""),
		Deadline: refuse(wire.ReasonFetch), Restart: to(wire.Verify), Exceeded: refuse(wire.ReasonInterrupted),
	}},
	{step: wire.Fetch, deadline: 24 * time.Hour, restarts: 100, on: [numInputs]edge{
		Offer: refuse(wire.ReasonSuperseded), Cancel: refuse(wire.ReasonSuperseded), Done: to(wire.Assemble), Fail: refuse(""), NoDelta: to(wire.Fetch),
		Deadline: refuse(wire.ReasonFetch), Restart: to(wire.Fetch), Exceeded: refuse(wire.ReasonInterrupted),
	}},
	{step: wire.Assemble, deadline: 10 * time.Minute, restarts: 5, on: [numInputs]edge{
		Offer: refuse(wire.ReasonSuperseded), Cancel: refuse(wire.ReasonSuperseded), Done: to(wire.Check), Fail: refuse(""), NoDelta: to(wire.Fetch),
		Deadline: refuse(wire.ReasonDeadline), Restart: to(wire.Assemble), Exceeded: refuse(wire.ReasonInterrupted),
	}},
	{step: wire.Check, deadline: 5 * time.Minute, restarts: 3, on: [numInputs]edge{
		Offer: refuse(wire.ReasonSuperseded), Cancel: refuse(wire.ReasonSuperseded), Done: to(wire.Probe), Fail: refuse(""),
		Deadline: refuse(wire.ReasonDeadline), Restart: to(wire.Check), Exceeded: refuse(wire.ReasonInterrupted),
	}},
	{step: wire.Probe, deadline: 10 * time.Minute, restarts: 2, on: [numInputs]edge{
		Offer: refuse(wire.ReasonSuperseded), Cancel: refuse(wire.ReasonSuperseded), Done: to(wire.Shadow), Fail: refuse(""),
		Deadline: refuse(wire.ReasonDeadline), Restart: to(wire.Probe), Exceeded: refuse(wire.ReasonInterrupted),
	}},
	{step: wire.Shadow, deadline: time.Hour, restarts: 2, on: [numInputs]edge{
		Offer: refuse(wire.ReasonSuperseded), Cancel: refuse(wire.ReasonSuperseded), Done: to(wire.Activate), Fail: refuse(""),
		Deadline: refuse(wire.ReasonDeadline), Restart: to(wire.Shadow), Exceeded: refuse(wire.ReasonInterrupted),
	}},
	{step: wire.Activate, deadline: 5 * time.Minute, restarts: MaxTrials, trial: true, on: [numInputs]edge{
		Offer: back(wire.ReasonSuperseded), Cancel: back(wire.ReasonSuperseded), Done: to(wire.Probation), Fail: back(""),
		Deadline: back(wire.ReasonDeadline), Restart: to(wire.Activate), Exceeded: back(wire.ReasonInterrupted),
	}},
	{step: wire.Probation, restarts: MaxTrials, trial: true, on: [numInputs]edge{
		Offer: back(wire.ReasonSuperseded), Cancel: back(wire.ReasonSuperseded), Done: to(wire.Commit), Fail: back(""),
		Deadline: back(wire.ReasonNoFrames), Restart: to(wire.Activate), Exceeded: back(wire.ReasonInterrupted),
	}},
	{step: wire.Commit, deadline: 5 * time.Minute, restarts: MaxTrials, trial: true, on: [numInputs]edge{
		Done: {wire.Idle, wire.Committed, ""}, Fail: back(""),
		Deadline: back(wire.ReasonDeadline), Restart: to(wire.Activate), Exceeded: back(wire.ReasonInterrupted),
	}},
	{step: wire.Rollback, deadline: 5 * time.Minute, restarts: 5, on: [numInputs]edge{
		Done: {wire.Idle, wire.RolledBack, ""}, Fail: {wire.Idle, wire.RolledBack, ""},
		Deadline: {wire.Idle, wire.RolledBack, ""}, Restart: to(wire.Rollback), Exceeded: {wire.Idle, wire.RolledBack, ""},
	}},
}

// rowOf finds the row of a state.
func rowOf(s wire.UpdateState) (*row, bool) {
	for i := range table {
		if table[i].step == s {
			return &table[i], true
		}
	}
	return nil, false
}

// DeadlineOf is how long the state may last; 0 for ever, which only idle may.
func DeadlineOf(s State) time.Duration {
	if s.Step == wire.Probation {
		return time.Duration(max(1, s.Target.Seconds)) * time.Second
	}
	r, _ := rowOf(s.Step)
	return r.deadline
}

// Defined says whether a state takes an input at all.
func Defined(s wire.UpdateState, k InputKind) bool {
	r, ok := rowOf(s)
	return ok && r.on[k].to != ""
}
