package multicast

import "time"

// maxBuckets bounds how many devices and blobs are remembered.
const maxBuckets = 1 << 16

// buckets are token buckets by device and blob.
type buckets map[asker]*bucket

type bucket struct {
	tokens float64
	at     time.Time
}

func newBuckets() buckets { return buckets{} }

// pay takes n tokens out of a bucket of burst tokens that gains refill a
// second, and says whether they were there.
func (b buckets) pay(k asker, burst, refill, n float64, now time.Time) bool {
	t := b[k]
	if t == nil {
		if len(b) >= maxBuckets {
			b.forget(now)
		}
		t = &bucket{tokens: burst, at: now}
		b[k] = t
	}
	t.tokens = min(burst, t.tokens+now.Sub(t.at).Seconds()*refill)
	t.at = now
	if t.tokens < n {
		return false
	}
	t.tokens -= n
	return true
}

// forget drops buckets that are full again for certain, or else all: that
// forgives one burst, where memory would have no bound.
func (b buckets) forget(now time.Time) {
	for k, t := range b {
		if now.Sub(t.at) > period {
			delete(b, k)
		}
	}
	if len(b) >= maxBuckets {
		clear(b)
	}
}
