package fetch

import (
	"context"
	"errors"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// Source passes on a request for chunks; they come by Fetcher.Deliver, at any
// time, in any order, or not at all. A Source that also has a method
// Done(blob string) is told when no more chunks of a blob are wanted.
type Source interface {
	// Request asks for the chunks first + i of a blob whose bit i of want is
	// set, least significant bit of the first byte first. It returns when the
	// request is on its way; an error counts as an answer that did not come.
	Request(ctx context.Context, blob string, first int, want []byte) error
}

// Repairer is a Source that can say more about what it asks for.
type Repairer interface {
	Source
	// Repair is Request for chunks that were asked for and did not come.
	// alone says that the shared topic costs more than it brings: the source
	// stops listening to it, and asks for the chunks to come to this device
	// only.
	Repair(ctx context.Context, blob string, first int, want []byte, alone bool) error
}

// Settler is a Source that can tell a slow link from a lost chunk.
type Settler interface {
	Source
	// Settle returns when all that the broker had for this device at the time
	// of the call has been delivered. An error says nothing.
	Settle(ctx context.Context) error
}

// Reader is a source that brings the chunks itself: a folder, an HTTPS server.
type Reader interface {
	// Read brings the given chunks of a blob, ascending, and calls give for
	// each, from any one goroutine; give owns the data. It returns when it has
	// called give for all it will ever bring, soon after ctx ends. ErrAbsent:
	// it does not have the blob, and asking again is of no use.
	Read(ctx context.Context, ref wire.BlobRef, chunks []int, give func(chunk int, data []byte)) error
}

// ErrAbsent says that a Reader does not have a blob.
var ErrAbsent = errors.New("fetch: the source does not have this blob")

// way is one source as one job sees it.
type way struct {
	push  Source
	pull  Reader
	near  bool
	fails int          // in a row
	until time.Time    // it is not asked before
	skip  map[int]bool // near: chunks it does not have, or has wrong
	gone  bool         // it does not have the blob
}

func ways(c *Config) []*way {
	var all []*way
	for _, r := range c.Near {
		all = append(all, &way{pull: r, near: true, skip: map[int]bool{}})
	}
	if c.Source != nil {
		all = append(all, &way{push: c.Source})
	}
	for _, r := range c.Far {
		all = append(all, &way{pull: r})
	}
	return all
}
