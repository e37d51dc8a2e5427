package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// Whole is the threshold that selects every device.
const Whole uint64 = 1 << 32

// Selector says which devices a plan means: those listed, or those all of
// whose Labels match, or those whose hash is under Threshold. Any one of the
// three suffices; one that is empty selects nobody.
type Selector struct {
	Devices   []string          `json:"devices,omitempty"` // ≤ MaxListed
	Labels    map[string]string `json:"labels,omitempty"`
	Seed      string            `json:"seed,omitempty"`
	Threshold uint64            `json:"threshold,omitempty"` // of Whole
}

// Matches says whether a device is meant. Raising only the threshold never
// loses a device that was in: waves are nested.
func (s Selector) Matches(device string, labels map[string]string) bool {
	for _, d := range s.Devices {
		if d == device {
			return true
		}
	}
	if len(s.Labels) > 0 {
		all := true
		for k, v := range s.Labels {
			got, ok := labels[k]
			all = all && ok && got == v
		}
		if all {
			return true
		}
	}
	sum := sha256.Sum256([]byte(s.Seed + device))
	return uint64(binary.BigEndian.Uint32(sum[:4])) < s.Threshold
}

// Plan says who gets a release. It is the custom field of the target
// rollout/{ID} that the role rollouts signs; only waves that are open stand in
// it, and each widening is a new signed version.
type Plan struct {
	V         int      `json:"v"`
	ID        string   `json:"id"`
	Serial    int64    `json:"serial"` // grows with every plan of the fleet; of several that match, the highest counts
	Release   string   `json:"release"`
	Selector  Selector `json:"selector"`
	Probation struct {
		Frames  int `json:"frames"`  // results the new model must give before commit
		Seconds int `json:"seconds"` // deadline of the probation
	} `json:"probation"`
}

// RolloutPath is the TUF target path of a plan.
func RolloutPath(id string) string { return "rollout/" + id }

// DecodePlan decodes and checks a plan.
func DecodePlan(b []byte) (*Plan, error) {
	p := new(Plan)
	if err := DecodeStrict(b, MaxRollouts, p); err != nil {
		return nil, err
	}
	return p, p.Check()
}

// Check says whether the plan is complete and within the limits.
func (p *Plan) Check() error {
	if !ValidName(p.ID) || p.Serial < 1 {
		return fmt.Errorf("%w: plan id %q serial %d", ErrMalformed, p.ID, p.Serial)
	}
	if _, _, err := ParseReleasePath(p.Release); err != nil {
		return err
	}
	if len(p.Selector.Devices) > MaxListed {
		return fmt.Errorf("%w: %d devices listed, allowed %d; use labels or a threshold", ErrTooLarge, len(p.Selector.Devices), MaxListed)
	}
	if p.Selector.Threshold > Whole {
		return fmt.Errorf("%w: threshold %d of %d", ErrMalformed, p.Selector.Threshold, Whole)
	}
	if p.Probation.Frames < 1 || p.Probation.Frames > 1<<20 || p.Probation.Seconds < 1 || p.Probation.Seconds > 7*24*3600 {
		return fmt.Errorf("%w: probation of %d frames in %d s", ErrMalformed, p.Probation.Frames, p.Probation.Seconds)
	}
	return nil
}
