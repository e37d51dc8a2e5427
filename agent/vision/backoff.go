package vision

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff spaces restarts: doubling from first to most, with jitter so that
// several cameras of one dead switch do not come back in step. A run of at
// least steady resets it.
type backoff struct {
	first, most, steady time.Duration
	next                time.Duration
}

func newBackoff() backoff {
	return backoff{first: 100 * time.Millisecond, most: 10 * time.Second, steady: 30 * time.Second}
}

// delay says how long to wait after a run of the given length.
func (b *backoff) delay(ran time.Duration) time.Duration {
	if b.next == 0 || ran >= b.steady {
		b.next = b.first
	}
	d := b.next
	b.next = min(2*b.next, b.most)
	return d/2 + rand.N(d/2+1)
}

// sleep waits, or returns early when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
