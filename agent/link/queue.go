package link

import (
	"context"
	"sync"
)

type item struct {
	sub     *subscription
	topic   string
	payload []byte
}

func (i item) size() int { return len(i.topic) + len(i.payload) }

// queue is bounded in items and bytes. put never blocks.
type queue struct {
	maxItems, maxBytes int

	mu    sync.Mutex
	items []item
	bytes int
	wake  chan struct{} // cap 1
}

func newQueue(items, bytes int) *queue {
	return &queue{maxItems: items, maxBytes: bytes, wake: make(chan struct{}, 1)}
}

func (q *queue) put(i item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) >= q.maxItems || q.bytes+i.size() > q.maxBytes {
		return false
	}
	q.items = append(q.items, i)
	q.bytes += i.size()
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return true
}

func (q *queue) take() (item, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return item{}, false
	}
	i := q.items[0]
	q.items[0] = item{} // the payload is not kept alive
	q.items = q.items[1:]
	q.bytes -= i.size()
	return i, true
}

// run calls the handlers, one at a time, until ctx is done. drained is called
// whenever the queue has become empty.
func (q *queue) run(ctx context.Context, drained func()) error {
	for {
		i, ok := q.take()
		if !ok {
			drained()
			select {
			case <-q.wake:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if !i.sub.gone.Load() {
			i.sub.handle(i.topic, i.payload)
		}
	}
}
