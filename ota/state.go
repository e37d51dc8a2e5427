package ota

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/droverhq/drover/agent/wire"
)

// Bounds of what a device remembers and repeats.
const (
	MaxTries    = 8  // of one release that failed for a reason that may pass
	MaxTrials   = 2  // unasked restarts during one trial
	maxRefusals = 16 // refused releases remembered
)

// Target is where an update leads.
type Target struct {
	Plan     string       `json:"plan"`
	Serial   int64        `json:"serial"`
	Release  string       `json:"release"`
	Manifest wire.BlobRef `json:"manifest"`
	Frames   int          `json:"frames"`  // of the probation
	Seconds  int          `json:"seconds"` // of the probation, at most
	Shadow   bool         `json:"shadow,omitempty"`
}

// same says whether both lead to the same release.
func (t *Target) same(o *Target) bool {
	return t.Release == o.Release && t.Manifest.Digest == o.Manifest.Digest
}

// Refused is a release the device tried and will not try again, or not soon.
type Refused struct {
	Plan     string      `json:"plan"`
	Serial   int64       `json:"serial"`
	Release  string      `json:"release"`
	Digest   string      `json:"sha256"`
	Reason   wire.Reason `json:"reason"`
	Tries    int         `json:"tries"`
	Received int64       `json:"received,omitempty"` // bytes, of the data budget
	Full     bool        `json:"full,omitempty"`     // no delta served
}

// ForGood says whether only a new plan brings another try.
func (r Refused) ForGood() bool { return !mayPass(r.Reason) || r.Tries >= MaxTries }

// mayPass says whether a reason lies with the network or the device rather
// than with the release.
func mayPass(r wire.Reason) bool {
	return r == wire.ReasonFetch || r == wire.ReasonSpace || r == wire.ReasonInternal
}

// forgotten says whether an end for this reason says nothing about the release.
func forgotten(r wire.Reason) bool {
	return r == wire.ReasonSuperseded || r == wire.ReasonExpired
}

// State is where the update stands: what the journal holds. It is a value;
// Next copies what it changes.
type State struct {
	V       int              `json:"v"`
	Step    wire.UpdateState `json:"step"`
	Target  *Target          `json:"target,omitempty"` // nil exactly in idle
	Variant string           `json:"variant,omitempty"`
	Delta   string           `json:"delta,omitempty"`   // digest of the delta that was fetched in place of the model
	Full    bool             `json:"full,omitempty"`    // no delta served: the model itself is fetched
	Runtime json.RawMessage  `json:"runtime,omitempty"` // what the probe chose
	Reason  wire.Reason      `json:"reason,omitempty"`  // of a rollback under way
	Message string           `json:"message,omitempty"`
	// Restarts counts unasked restarts in this step, Trials those since the
	// release first was on trial. Clean says that the program stopped in order.
	Restarts int               `json:"restarts,omitempty"`
	Trials   int               `json:"trials,omitempty"`
	Clean    bool              `json:"clean,omitempty"`
	Received int64             `json:"received,omitempty"` // bytes, for this update
	Refusals []Refused         `json:"refusals,omitempty"` // newest last
	Last     wire.UpdateStatus `json:"last"`               // how the last update ended
}

// NewState is that of a device that never updated.
func NewState() State {
	return State{V: 1, Step: wire.Idle, Last: wire.UpdateStatus{State: wire.Idle}}
}

// Refusal looks up what is remembered of a release under a plan.
func (s *State) Refusal(t *Target) (Refused, bool) {
	i := s.refusal(t)
	if i < 0 {
		return Refused{}, false
	}
	return s.Refusals[i], true
}

func (s *State) refusal(t *Target) int {
	return slices.IndexFunc(s.Refusals, func(r Refused) bool {
		return r.Plan == t.Plan && r.Serial == t.Serial && r.Release == t.Release && r.Digest == t.Manifest.Digest
	})
}

// remember notes a refusal; the oldest is forgotten when there are too many.
func (s *State) remember(t *Target, reason wire.Reason, received int64) {
	r := Refused{Plan: t.Plan, Serial: t.Serial, Release: t.Release, Digest: t.Manifest.Digest, Reason: reason, Tries: 1, Received: received, Full: s.Full}
	list := slices.Clone(s.Refusals)
	if i := s.refusal(t); i >= 0 {
		r.Tries = list[i].Tries + 1
		list = slices.Delete(list, i, i+1)
	}
	list = append(list, r)
	s.Refusals = list[max(0, len(list)-maxRefusals):]
}

func (s *State) encode() []byte {
	b, err := json.Marshal(s)
	if err != nil {
		panic("internal error: ota: state: " + err.Error())
	}
	return b
}

// decodeState reads a journal entry and refuses one that Next could not go on
// from.
func decodeState(b []byte) (State, error) {
	s := NewState()
	if err := json.Unmarshal(b, &s); err != nil {
		return NewState(), fmt.Errorf("ota: journal: %w", err)
	}
	if s.V != 1 {
		return NewState(), fmt.Errorf("ota: journal of version %d, this program reads 1", s.V)
	}
	if _, ok := rowOf(s.Step); !ok || (s.Step == wire.Idle) != (s.Target == nil) {
		return NewState(), fmt.Errorf("ota: journal: state %q does not fit its target", s.Step)
	}
	return s, nil
}
