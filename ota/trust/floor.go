package trust

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
)

// floor is what may never be gone below.
type floor struct {
	V        int           `json:"v"`
	Versions tufcore.Floor `json:"versions"` // highest accepted, per role
	// Clock is the reference time of the last verification in Unix seconds,
	// and Boot and Boottime when that was, by the clock that counts from boot.
	Clock    int64         `json:"clock,omitempty"`
	Boot     string        `json:"boot,omitempty"`
	Boottime time.Duration `json:"boottime_ns,omitempty"`
}

func decodeFloor(b []byte) (floor, error) {
	f := floor{V: 1, Versions: tufcore.Floor{}}
	if len(b) == 0 {
		return f, nil
	}
	var got floor
	if err := json.Unmarshal(b, &got); err != nil {
		return f, fmt.Errorf("trust: floor: %v", err)
	}
	if got.V != 1 {
		return f, fmt.Errorf("trust: floor of version %d, this program reads 1", got.V)
	}
	if got.Versions == nil {
		got.Versions = f.Versions
	}
	return got, nil
}

func (f floor) encode() []byte { return wire.Encode(f) }

func (f floor) clone() floor {
	f.Versions = f.Versions.Clone()
	return f
}

// forget gives up what keys that a root took away may have driven up.
func (f *floor) forget(lost tufcore.Lost) {
	f.Versions.Forget(lost)
	if lost.Timestamp {
		f.Clock, f.Boot, f.Boottime = 0, "", 0
	}
}

// clock tells the reference time. It never asks the system's clock.
type clock struct {
	build    time.Time
	boottime func() time.Duration
	boot     string        // id of this boot
	opened   time.Duration // boottime when the client was opened
}

// now is the reference time under a floor.
func (c *clock) now(f floor) time.Time {
	up := c.boottime()
	// The program may have been built long after this boot, so only what
	// passed since the client was opened is known to be after the build.
	t := c.build.Add(max(0, up-c.opened))
	if f.Clock > 0 {
		since := up // the last verification was before this boot
		if f.Boot == c.boot {
			since = max(0, up-f.Boottime)
		}
		if v := time.Unix(f.Clock, 0).Add(since); v.After(t) {
			t = v
		}
	}
	return t.UTC()
}

// verified records in f that a timestamp of this version was accepted.
func (c *clock) verified(f *floor, version int64) {
	f.Clock = max(version, c.now(*f).Unix())
	f.Boot, f.Boottime = c.boot, c.boottime()
}
