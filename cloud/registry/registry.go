// Package registry is the memory of the cloud side: which models exist and
// where they come from, which releases were made of them, every version of the
// trust metadata, the rollouts, the devices and what they report.
//
// A registry is a folder. Rows stand in registry.db (SQLite, write-ahead log),
// large bytes in blobs/, named by their SHA-256. Several processes may have the
// same folder open: the CLI works while a hub runs. A hub notices what others
// wrote by polling ChangeCounter, which costs one small read.
//
// Nothing that a device may have seen is ever changed: models, releases, blobs
// and metadata are only added. What moves is little and named: aliases, states
// of releases and rollouts, the last report of a device, leases.
//
// A process may be killed at any moment. A blob is written, synced, renamed and
// its folder synced before the row that names it is committed; so a row never
// names bytes that are not there, and a blob without a row is only waste.
//
// The SQL keeps to what SQLite and PostgreSQL share.
package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Options are for tests and special set-ups; the zero value is right for all
// others.
type Options struct {
	// Now gives the time that is written into rows and compared with expiries.
	// Nil means time.Now.
	Now func() time.Time
	// BusyTimeout is how long a write waits for another process. Zero means 10 s.
	BusyTimeout time.Duration
}

// Registry is one open registry. It is safe for concurrent use; several of
// them, in one process or in many, may be open on the same folder.
type Registry struct {
	store *store
	blobs *blobStore
	clock func() time.Time
}

// Open opens the registry in dir, which is made if it does not exist, and
// brings its schema up to date.
func Open(ctx context.Context, dir string) (*Registry, error) {
	return OpenWith(ctx, dir, Options{})
}

// OpenWith is Open with options.
func OpenWith(ctx context.Context, dir string, o Options) (*Registry, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BusyTimeout <= 0 {
		o.BusyTimeout = 10 * time.Second
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: open: %w", err)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("registry: open: %w", err)
	}
	st, err := openStore(ctx, filepath.Join(dir, "registry.db"), o.BusyTimeout)
	if err != nil {
		return nil, fmt.Errorf("registry: open %s: %w", dir, err)
	}
	bs, err := openBlobFolder(filepath.Join(dir, "blobs"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registry: open %s: %w", dir, err), st.close())
	}
	if err := syncDir(dir); err != nil {
		return nil, errors.Join(fmt.Errorf("registry: open %s: %w", dir, err), bs.close(), st.close())
	}
	return &Registry{store: st, blobs: bs, clock: o.Now}, nil
}

// Close ends the use of the registry. Readers of blobs must be closed before.
func (r *Registry) Close() error {
	return errors.Join(r.blobs.close(), r.store.close())
}

func (r *Registry) now() time.Time { return r.clock().UTC().Truncate(time.Microsecond) }

// micros is how an instant stands in the database; the zero time is 0.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func instant(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
