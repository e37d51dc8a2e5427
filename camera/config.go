package camera

import (
	"fmt"
	"time"
)

// Config is everything a camera child is told about its source. The zero value
// of a duration means its default.
type Config struct {
	Source      string        `json:"source"`                 // as ParseSource reads it
	OpenTimeout time.Duration `json:"open_timeout,omitempty"` // ns; until a source that does not answer is given up; default 10 s
	StallAfter  time.Duration `json:"stall_after,omitempty"`  // ns; without a frame: reported as stalled; default 2 s
	StuckAfter  time.Duration `json:"stuck_after,omitempty"`  // ns; without a frame: the child gives itself up; default 5 s
}

// The defaults and the range of Config's durations.
const (
	DefaultOpenTimeout = 10 * time.Second
	DefaultStallAfter  = 2 * time.Second
	DefaultStuckAfter  = 5 * time.Second

	minPatience = 50 * time.Millisecond
	maxPatience = 10 * time.Minute
)

// WithDefaults fills in what is zero.
func (c Config) WithDefaults() Config {
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.OpenTimeout, DefaultOpenTimeout},
		{&c.StallAfter, DefaultStallAfter},
		{&c.StuckAfter, DefaultStuckAfter},
	} {
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	return c
}

// Validate checks c, defaults applied, and returns its source.
func (c Config) Validate() (Source, error) {
	src, err := ParseSource(c.Source)
	if err != nil {
		return Source{}, err
	}
	c = c.WithDefaults()
	for _, d := range []time.Duration{c.OpenTimeout, c.StallAfter, c.StuckAfter} {
		if d < minPatience || d > maxPatience {
			return Source{}, fmt.Errorf("camera: timeout of %v, allowed %v…%v", d, minPatience, maxPatience)
		}
	}
	if c.StuckAfter < c.StallAfter {
		return Source{}, fmt.Errorf("camera: stuck after %v is before stalled after %v", c.StuckAfter, c.StallAfter)
	}
	return src, nil
}
