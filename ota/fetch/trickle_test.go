package fetch

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// trickle delivers one good chunk of what was asked for every so often: never
// so seldom that it counts as stalled, never so often that a fetch ends.
type trickle struct {
	mu   sync.Mutex
	want []int
	sent map[int]bool
}

func (l *trickle) Request(_ context.Context, blob string, first int, want []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := wire.Get{Blob: blob, First: first, Want: want}
	l.want = g.Chunks()
	return nil
}

func (l *trickle) Done(string) {}

func (l *trickle) next() (int, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.want {
		if !l.sent[c] {
			l.sent[c] = true
			return c, true
		}
	}
	return 0, false
}

// Whoever serves too slowly to ever finish is left at the deadline of the
// update's state, and what came is not fetched again.
func TestATrickleEndsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blob := randomBlob(200 * wire.ChunkSize)
		ref := wire.NewBlobRef(blob)
		l := &trickle{sent: map[int]bool{}}
		f := New(Config{Source: l})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				if c, ok := l.next(); ok {
					f.Deliver(ref.Digest, c, blob[c*wire.ChunkSize:(c+1)*wire.ChunkSize])
				}
				select {
				case <-time.After(time.Minute):
				case <-ctx.Done():
				}
			}
		}()
		part, began := &memPart{}, time.Now()
		err := f.Fetch(ctx, ref, part, nil, nil)
		<-ended
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > time.Hour+5*time.Second {
			t.Errorf("ended after %v: %v", time.Since(began), err)
		}
		kept := 0
		for c := range l.sent {
			lo := c * wire.ChunkSize
			if hi := lo + wire.ChunkSize; len(part.synced) >= hi && bytes.Equal(part.synced[lo:hi], blob[lo:hi]) {
				kept++
			}
		}
		if len(l.sent) < 20 || kept < len(l.sent)-2 { // the last ones may have come with the deadline
			t.Errorf("%d of %d chunks were kept", kept, len(l.sent))
		}
	})
}
