package fetch

import (
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// pace is a token bucket of bytes that may be asked for. It holds one second's
// worth, at least a chunk and at most a window. The zero value has no bound.
type pace struct {
	rate, burst, tokens float64
	at                  time.Time
}

func newPace(rate int64) pace {
	if rate <= 0 {
		return pace{}
	}
	burst := min(max(float64(rate), wire.ChunkSize), Window*wire.ChunkSize)
	return pace{rate: float64(rate), burst: burst, tokens: burst}
}

func (p *pace) refill(now time.Time) {
	if !p.at.IsZero() {
		p.tokens = min(p.burst, p.tokens+now.Sub(p.at).Seconds()*p.rate)
	}
	p.at = now
}

// allow says how many of n chunks may be asked for now, or, when it is none,
// from when on.
func (p *pace) allow(now time.Time, n int) (int, time.Time) {
	if p.rate == 0 {
		return n, now
	}
	p.refill(now)
	if k := min(n, int(p.tokens/wire.ChunkSize)); k > 0 {
		return k, now
	}
	short := (wire.ChunkSize - p.tokens) / p.rate
	return 0, now.Add(time.Duration(short*float64(time.Second)) + time.Millisecond)
}

// spend pays for bytes that were asked for, or that came unasked.
func (p *pace) spend(now time.Time, bytes int) {
	if p.rate > 0 {
		p.refill(now)
		p.tokens -= float64(bytes)
	}
}

// over says that far more comes than was asked for.
func (p *pace) over() bool { return p.rate > 0 && p.tokens < -2*Window*wire.ChunkSize }
