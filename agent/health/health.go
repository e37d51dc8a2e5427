// Package health answers one question: may this release be committed? It is
// pure: an observation goes in, a verdict comes out.
package health

import (
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// Observation is what was seen of a release since it was activated.
type Observation struct {
	Results  uint64        // answers
	Errors   uint64        // frames the runtime refused
	Restarts int           // of the child
	Hangs    int           // restarts because it stopped answering
	Classes  []uint64      // answers per class
	P99      time.Duration // of the newest inferences, preprocessing included
	Why      string        // the child's last words
}

// Policy is what a release must keep to.
type Policy struct {
	Frames     int           // answers needed for a commit
	LatencyP99 time.Duration // 0: no limit
	// Varied says that the release that answered before gave several classes
	// on the same cameras: only then is one class on everything suspicious.
	Varied bool
}

// Verdict is the answer.
type Verdict int

// The verdicts.
const (
	Wait   Verdict = iota // not enough seen
	Commit                // good
	Return                // back to the previous release
)

const (
	minForLatency = 50   // answers before a quantile means something
	collapseShare = 0.99 // of the answers in one class
	errorShare    = 0.05 // of the frames refused by the runtime
)

// Judge decides. With Return come a reason and a sentence.
func Judge(o Observation, p Policy) (Verdict, wire.Reason, string) {
	switch {
	case o.Hangs > 0:
		return Return, wire.ReasonHang, fmt.Sprintf("its child stopped answering after %d results: %s", o.Results, o.Why)
	case o.Restarts > 0:
		return Return, wire.ReasonCrash, fmt.Sprintf("its child died after %d results: %s", o.Results, o.Why)
	case o.Errors > 0 && float64(o.Errors) > errorShare*float64(o.Results+o.Errors):
		return Return, wire.ReasonCrash, fmt.Sprintf("the runtime failed on %d of %d frames", o.Errors, o.Results+o.Errors)
	case p.LatencyP99 > 0 && o.Results >= minForLatency && o.P99 > p.LatencyP99:
		return Return, wire.ReasonLatency, fmt.Sprintf("p99 of one inference is %v, budget %v", o.P99, p.LatencyP99)
	case o.Results < uint64(max(1, p.Frames)):
		return Wait, wire.ReasonNone, ""
	}
	if p.Varied && len(o.Classes) > 1 && o.Results >= minForLatency {
		for class, n := range o.Classes {
			if float64(n) >= collapseShare*float64(o.Results) {
				return Return, wire.ReasonCollapse, fmt.Sprintf("%d of %d results are class %d, while the release before saw several", n, o.Results, class)
			}
		}
	}
	return Commit, wire.ReasonNone, ""
}

// Varies says whether results are spread over classes: no class has almost all.
func Varies(classes []uint64) bool {
	var sum, top uint64
	for _, n := range classes {
		sum += n
		top = max(top, n)
	}
	return sum >= minForLatency && float64(top) < collapseShare*float64(sum)
}
