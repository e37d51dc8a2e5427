package fetch

import (
	"fmt"
	"sync/atomic"
)

// Budget bounds the bytes received for one update, all blobs and all
// duplicates counted. It is safe for concurrent use.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget allows limit bytes, of which used are already gone; a limit of 0
// means no limit.
func NewBudget(limit, used int64) *Budget {
	b := &Budget{limit: limit}
	b.used.Store(used)
	return b
}

// Used is the bytes received so far.
func (b *Budget) Used() int64 { return b.used.Load() }

func (b *Budget) add(n int) { b.used.Add(int64(n)) }

func (b *Budget) check() error {
	if used := b.used.Load(); b.limit > 0 && used > b.limit {
		return fmt.Errorf("%w: %d bytes received, allowed %d", ErrBudget, used, b.limit)
	}
	return nil
}
