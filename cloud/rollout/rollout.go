// Package rollout decides who gets a release next. It is pure: a plan, what was
// observed and the time go in, a decision comes out; cloud gathers the one and
// carries out the other.
//
// A rollout is a list of waves, each a selector; a wave contains the ones
// before it. Only the waves that are open stand in the signed plan. A wave is
// done when every reachable device it selects has committed; then the next one
// opens, after the soak. When too many devices fail, the rollout halts: its
// plan is taken back, and devices that have not begun stay where they are.
package rollout

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// State is where a rollout stands.
type State string

// The states. Running is the only one that can change by itself.
const (
	Running State = "running"
	Halted  State = "halted"  // by a gate
	Done    State = "done"    // every wave is done
	Aborted State = "aborted" // by an operator
)

// Open says whether devices may still be told about the rollout: the plan of a
// rollout that is done stays open, so that new devices get the release too.
func (s State) Open() bool { return s == Running || s == Done }

// Wave is one step of a rollout.
type Wave struct {
	Selector wire.Selector `json:"selector"`
	Soak     time.Duration `json:"soak,omitempty"` // between its end and the next wave
}

// Plan is a rollout as its operator ordered it.
type Plan struct {
	ID        string    `json:"id"`
	Serial    int64     `json:"serial"`
	Release   string    `json:"release"`
	Waves     []Wave    `json:"waves"`
	Frames    int       `json:"frames"`     // of the probation on each device
	Seconds   int       `json:"seconds"`    // of the probation, at most
	MaxFailed float64   `json:"max_failed"` // share of devices that may fail, (0, 1]
	Deadline  time.Time `json:"deadline"`   // after it a running rollout halts
}

// ErrPlan is wrapped by what Check says.
var ErrPlan = errors.New("rollout: bad plan")

// Check says whether the plan is complete.
func (p *Plan) Check() error {
	if len(p.Waves) == 0 {
		return fmt.Errorf("%w: no wave", ErrPlan)
	}
	if !(p.MaxFailed > 0 && p.MaxFailed <= 1) {
		return fmt.Errorf("%w: share of failures %v, wanted more than 0 and at most 1", ErrPlan, p.MaxFailed)
	}
	if p.Deadline.IsZero() {
		return fmt.Errorf("%w: no deadline", ErrPlan)
	}
	signed := p.Signed(len(p.Waves) - 1)
	return signed.Check()
}

// Signed is the plan as devices get it while waves 0 … wave are open. Waves are
// nested, so the last open one selects all.
func (p *Plan) Signed(wave int) wire.Plan {
	out := wire.Plan{V: wire.Version, ID: p.ID, Serial: p.Serial, Release: p.Release, Selector: p.Waves[wave].Selector}
	out.Probation.Frames, out.Probation.Seconds = p.Frames, p.Seconds
	return out
}

// Progress is what the hub remembers of a rollout between two decisions.
type Progress struct {
	State    State     `json:"state"`
	Wave     int       `json:"wave"` // the last one that is open
	DoneAt   time.Time `json:"done_at,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	Observed Observed  `json:"observed"`
}

// Observed counts the devices that the open waves select.
type Observed struct {
	Selected    int                 `json:"selected"`
	Committed   int                 `json:"committed"`
	Failed      int                 `json:"failed"`      // refused or rolled back
	Unreachable int                 `json:"unreachable"` // of the others: not seen lately
	Reasons     map[wire.Reason]int `json:"reasons,omitempty"`
}

// Decide says where the rollout goes from here. It never widens in the step in
// which it halts, and never opens more than one wave at a time.
func Decide(p *Plan, at Progress, seen Observed, now time.Time) Progress {
	next := at
	next.Observed = seen
	if at.State != Running {
		return next
	}
	if seen.Failed > 0 {
		if low := WilsonLow(seen.Failed, seen.Committed+seen.Failed); low > p.MaxFailed {
			next.State = Halted
			next.Reason = fmt.Sprintf("%d of %d devices failed: with 95 %% confidence more than %.0f %%, allowed %.0f %%", seen.Failed, seen.Committed+seen.Failed, 100*low, 100*p.MaxFailed)
			return next
		}
	}
	settled := seen.Selected > 0 && seen.Committed+seen.Failed+seen.Unreachable >= seen.Selected && seen.Committed > 0
	if !settled {
		next.DoneAt = time.Time{}
		if now.After(p.Deadline) {
			next.State = Halted
			next.Reason = fmt.Sprintf("deadline passed with %d of %d devices committed", seen.Committed, seen.Selected)
		}
		return next
	}
	if next.DoneAt.IsZero() {
		next.DoneAt = now
	}
	if now.Before(next.DoneAt.Add(p.Waves[at.Wave].Soak)) {
		return next
	}
	if at.Wave == len(p.Waves)-1 {
		next.State, next.Reason = Done, ""
		return next
	}
	next.Wave, next.DoneAt = at.Wave+1, time.Time{}
	return next
}

// WilsonLow is the lower bound of the 95 % Wilson score interval of k successes
// in n trials; 0 when n is 0. Source: E. B. Wilson, Probable inference, the law
// of succession, and statistical inference, JASA 22 (1927).
func WilsonLow(k, n int) float64 {
	if n == 0 {
		return 0
	}
	const z = 1.959963984540054
	p, nf := float64(k)/float64(n), float64(n)
	centre := p + z*z/(2*nf)
	spread := z * math.Sqrt(p*(1-p)/nf+z*z/(4*nf*nf))
	return max(0, (centre-spread)/(1+z*z/nf))
}
