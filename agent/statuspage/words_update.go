package statuspage

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// updateWords is the update as a row of steps with the present one marked.
type updateWords struct {
	Is, Headline          string // Is: idle, busy, bad
	Steps                 []stepWords
	Progress, Done, Total string // Progress is empty unless bytes are awaited
	Last, LastIs          string
	Message               string // of the last outcome
}

// stepWords is one step; Is is done, now, failed or empty.
type stepWords struct{ Key, Text, Is, Note, Current string }

// order is the row of steps. Shadow is part of an update only when its plan
// asks for it, rollback only when it happens.
func order(present, failed wire.UpdateState) []wire.UpdateState {
	steps := []wire.UpdateState{
		wire.Idle, wire.Verify, wire.Fetch, wire.Assemble, wire.Check, wire.Probe,
		wire.Activate, wire.Probation, wire.Commit,
	}
	if present == wire.Shadow || failed == wire.Shadow {
		steps = slices.Insert(steps, slices.Index(steps, wire.Activate), wire.Shadow)
	}
	if present == wire.Rollback || failed == wire.Rollback {
		steps = append(steps, wire.Rollback)
	}
	return steps
}

func (l language) update(s Snapshot) updateWords {
	u := s.State.Update
	present := u.State
	if present == "" {
		present = wire.Idle
	}
	release := u.Release
	if release == "" {
		release = l.t("update.some")
	}
	w := updateWords{Is: "busy", Headline: l.t("update."+string(present), release), Last: l.t("update.never")}
	last := lastOutcome(s)
	var failed wire.UpdateState
	if present == wire.Idle {
		w.Is, w.Headline = "idle", l.t("update.idle")
		if last.outcome != wire.Committed {
			failed = last.at
		}
	}
	if present == wire.Rollback {
		w.Is = "bad"
	}
	w.Steps = l.steps(present, failed)
	if present == wire.Fetch && u.Total > 0 {
		w.Done, w.Total = strconv.FormatInt(min(max(u.Done, 0), u.Total), 10), strconv.FormatInt(u.Total, 10)
		w.Progress = l.t("update.bytes", size(u.Done), size(u.Total))
	}
	if last.outcome != "" {
		w.Last, w.LastIs, w.Message = l.last(last, s.Now), outcomeLook(last.outcome), last.message
	}
	return w
}

func (l language) steps(present, failed wire.UpdateState) []stepWords {
	steps := order(present, failed)
	at := slices.Index(steps, present)
	var out []stepWords
	for i, step := range steps {
		one := stepWords{Key: string(step), Text: l.t("step." + string(step))}
		switch {
		case step == present && step == wire.Idle:
			one.Is, one.Note, one.Current = "rest", l.t("step.is.now"), "step"
		case step == present:
			one.Is, one.Note, one.Current = "now", l.t("step.is.now"), "step"
		case step == failed:
			one.Is, one.Note = "failed", l.t("step.is.failed")
		case i < at && present != wire.Rollback:
			one.Is, one.Note = "done", l.t("step.is.done")
		}
		out = append(out, one)
	}
	return out
}

// ending is how an update ended, and where.
type ending struct {
	outcome wire.Outcome
	at      wire.UpdateState
	release string
	reason  wire.Reason
	message string
	when    time.Time
}

// lastOutcome is the newest end of an update: from the status, which survives
// a restart, with the step it ended in from the history where that has it.
func lastOutcome(s Snapshot) ending {
	var from ending
	for _, e := range s.History {
		if ev := e.Event; ev.Kind == wire.EventUpdate && ev.Outcome != "" {
			from = ending{ev.Outcome, ev.From, ev.Release, ev.Reason, ev.Message, e.At}
			break
		}
	}
	u := s.State.Update
	if u.Outcome == "" {
		return from
	}
	e := ending{outcome: u.Outcome, release: u.Release, reason: u.Reason, message: u.Message}
	if u.Finished > 0 {
		e.when = time.UnixMilli(u.Finished)
	}
	if from.outcome == e.outcome && from.release == e.release {
		e.at = from.at
	}
	return e
}

func (l language) last(e ending, now time.Time) string {
	release := e.release
	if release == "" {
		release = l.t("update.some")
	}
	text := l.t("update."+string(e.outcome), release)
	if e.at != "" && e.outcome != wire.Committed {
		text += " " + l.t("update.at", l.word("step.", string(e.at)))
	}
	if e.reason != "" {
		text += ": " + string(e.reason)
	}
	parts := []string{text}
	if !e.when.IsZero() {
		parts = append(parts, l.t("update.ago", l.elapsed(now.Sub(e.when))))
	}
	return l.t("update.last", strings.Join(parts, ", "))
}
