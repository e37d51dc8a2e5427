package ota

import (
	"encoding/json"
	"strings"

	"github.com/droverhq/drover/agent/wire"
)

// Input is something that happened.
type Input struct {
	Kind     InputKind
	Target   *Target         // Offer
	Variant  string          // Done of verify
	Delta    string          // Done of fetch: digest of the delta fetched in place of the model
	Runtime  json.RawMessage // Done of probe
	Received int64           // Done and Fail: bytes received for this update so far; 0 leaves the count
	Reason   wire.Reason     // Fail
	Message  string          // for a person
	Now      int64           // Unix milliseconds
}

// Do is a thing to be done.
type Do int

// What there is to be done.
const (
	DoStop    Do = iota // stop the work under way and wait for it
	DoJournal           // make the new state durable; nothing after this before it is
	DoReport            // tell of Event
	DoWork              // begin the work of the new state, under its deadline
	DoClean             // the update is over: remove what nothing names
)

// Action is one thing to be done, in the order given.
type Action struct {
	Do    Do
	Event wire.Event // DoReport, without header
}

// Next decides. It returns the state unchanged and nothing to do when the
// state does not take the input. It has no effect outside its results.
func Next(s State, in Input) (State, []Action) {
	r, ok := rowOf(s.Step)
	if !ok {
		panic("internal error: ota: no state " + string(s.Step))
	}
	n := s
	in.Message = clip(in.Message)
	if in.Kind == Restart {
		if in.Kind = n.countRestart(r); in.Kind == Exceeded {
			in.Message = ""
		}
	}
	if in.Kind == NoDelta && s.Full && r.on[NoDelta].to != "" {
		in.Kind, in.Reason = Fail, wire.ReasonInternal // there is no way round twice
	}
	e := r.on[in.Kind]
	if e.to == "" || (s.Step == wire.Idle && in.Target == nil) {
		return s, nil
	}
	n.take(in, e.to)
	if e.reason != "" {
		in.Reason = e.reason
	}
	if e.to == wire.Idle {
		return n.end(s, in, e)
	}
	n.Step = e.to
	for n.Step == wire.Shadow && !n.Target.Shadow {
		n.Step = wire.Activate
	}
	if n.Step != s.Step && in.Kind != Restart {
		n.Restarts = 0
	}
	if n.Step == wire.Rollback && s.Step != wire.Rollback {
		n.Reason, n.Message = orInternal(in.Reason), message(in)
	}
	ev := wire.Event{Kind: wire.EventUpdate, Release: n.Target.Release, Plan: n.Target.Plan, From: s.Step, To: n.Step, Message: in.Message}
	if n.Step == wire.Rollback {
		ev.Reason, ev.Message = n.Reason, n.Message
	}
	acts := stopFor(in.Kind)
	return n, append(acts, Action{Do: DoJournal}, Action{Do: DoReport, Event: ev}, Action{Do: DoWork})
}

// countRestart counts one start of the program and says what it comes to.
func (s *State) countRestart(r *row) InputKind {
	if s.Step == wire.Idle {
		return Restart
	}
	count := &s.Restarts
	if r.trial {
		count = &s.Trials
	}
	if s.Clean {
		s.Clean = false
		return Restart
	}
	if *count++; *count > r.restarts {
		return Exceeded
	}
	return Restart
}

// take notes what an input tells.
func (s *State) take(in Input, to wire.UpdateState) {
	switch in.Kind {
	case Offer:
		if s.Step == wire.Idle {
			t := *in.Target
			s.Target, s.Restarts, s.Trials, s.Received = &t, 0, 0, 0
			s.Delta, s.Full = "", false
			if r, ok := s.Refusal(&t); ok {
				s.Received, s.Full = r.Received, r.Full
			}
		}
	case Done:
		if in.Variant != "" {
			s.Variant = in.Variant
		}
		if in.Runtime != nil {
			s.Runtime = in.Runtime
		}
		if to == wire.Assemble {
			s.Delta = in.Delta
		}
	case NoDelta:
		s.Delta, s.Full = "", true
	}
	s.Received = max(s.Received, in.Received)
}

// end brings the update to its outcome.
func (s State) end(from State, in Input, e edge) (State, []Action) {
	reason, msg := in.Reason, message(in)
	switch {
	case e.outcome == wire.Committed:
		reason, msg = wire.ReasonNone, in.Message
	case from.Step == wire.Rollback:
		reason, msg = orInternal(s.Reason), s.Message
		if in.Kind != Done && in.Message != "" {
			msg += "; then " + in.Message
		}
	default:
		reason = orInternal(reason)
	}
	if e.outcome != wire.Committed && !forgotten(reason) {
		s.remember(s.Target, reason, s.Received)
	}
	t := s.Target
	s.Last = wire.UpdateStatus{
		State: wire.Idle, Plan: t.Plan, Release: t.Release,
		Outcome: e.outcome, Reason: reason, Message: msg, Finished: in.Now,
	}
	n := State{V: s.V, Step: wire.Idle, Refusals: s.Refusals, Last: s.Last}
	ev := wire.Event{
		Kind: wire.EventUpdate, Release: t.Release, Plan: t.Plan, From: from.Step, To: wire.Idle,
		Outcome: e.outcome, Reason: reason, Message: msg,
	}
	return n, append(stopFor(in.Kind), Action{Do: DoJournal}, Action{Do: DoReport, Event: ev}, Action{Do: DoClean})
}

// stopFor says whether work may still be under way after an input.
func stopFor(k InputKind) []Action {
	if k == Offer || k == Cancel || k == Deadline {
		return []Action{{Do: DoStop}}
	}
	return nil
}

func orInternal(r wire.Reason) wire.Reason {
	if r == wire.ReasonNone {
		return wire.ReasonInternal
	}
	return r
}

// maxMessage bounds what a message may take of the journal and of an event:
// part of it may come from the network.
const maxMessage = 500

// clip shortens a message to maxMessage bytes of valid UTF-8.
func clip(msg string) string {
	if len(msg) > maxMessage {
		msg = msg[:maxMessage-len("…")] + "…"
	}
	return strings.ToValidUTF8(msg, "")
}

// message is a text for a person, never empty for what went wrong.
func message(in Input) string {
	if in.Message != "" {
		return in.Message
	}
	switch in.Kind {
	case Offer:
		return "a newer plan names another release"
	case Cancel:
		return "the plan does not name this device any more"
	case Deadline:
		return "the step took longer than it may"
	case Exceeded:
		return "the program was restarted too often during this step"
	}
	return ""
}
