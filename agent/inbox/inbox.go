package inbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/bundle"
)

// MaxFiles bounds the bundles that are looked at, over all folders.
const MaxFiles = 32

// Target is the release that a bundle leads this device to.
type Target struct {
	Plan      string
	Serial    int64  // of the plan
	Release   string // path
	Digest    string // of the manifest
	Timestamp int64  // version that the verifier will hold once it took the metadata
}

// Standing is where a bundle's release stands.
type Standing int

// The standings.
const (
	Pending Standing = iota
	Done             // the device runs it
	Ended            // it will not come; the error says why
)

// Device is what an inbox needs of the device. Errors that are refusals are
// *ota.Refusal. The methods are called from one goroutine.
type Device interface {
	// Judge says what the device's verifier would answer to a bundle, and to
	// what release it leads this device; nothing changes by it. r is the file.
	Judge(b *bundle.Bundle, r io.ReaderAt) (Target, error)
	// Offer hands the metadata to the verifier. It does not block, and may be
	// called again.
	Offer(b *bundle.Bundle)
	// Standing says what became of a release; the error belongs to Ended.
	Standing(t Target) (Standing, error)
}

// Config of an Inbox.
type Config struct {
	Dir   string   // made if it is not there
	Media []string // folders below which sticks are mounted
	// Device judges and takes.
	Device  Device
	OnEvent func(wire.Event) // must not block

	// optional
	Keep     int           // files kept of those done, and of those refused; default 2
	Quiet    time.Duration // a file must be left alone for so long; default 500 ms
	Patience time.Duration // a broken file is refused so long after its last change; default 2 min
	Poll     time.Duration // between two looks without an occasion; default 5 s
	Logger   *slog.Logger
}

// Inbox watches the folders. Source may be used from any goroutine; Prime and
// Run are called once each, in this order.
type Inbox struct {
	cfg    Config
	source *Source

	// of the goroutine of Run
	files  map[string]*file // by path
	latest time.Time        // when the next look is due
}

// New makes the folder.
func New(cfg Config) (*Inbox, error) {
	if cfg.Device == nil || cfg.OnEvent == nil || cfg.Dir == "" {
		return nil, errors.New("inbox: configuration without Dir, Device or OnEvent")
	}
	for _, d := range []struct {
		v    *time.Duration
		than time.Duration
	}{{&cfg.Quiet, 500 * time.Millisecond}, {&cfg.Patience, 2 * time.Minute}, {&cfg.Poll, 5 * time.Second}} {
		if *d.v <= 0 {
			*d.v = d.than
		}
	}
	if cfg.Keep <= 0 {
		cfg.Keep = 2
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("inbox: %w", err)
	}
	return &Inbox{cfg: cfg, source: NewSource(), files: map[string]*file{}}, nil
}

// Source is where the chunks of the bundles at hand come from.
func (in *Inbox) Source() *Source { return in.source }

// Prime makes sources of the files that are there, so that an update that was
// under way finds its blobs before anything was judged anew.
func (in *Inbox) Prime(ctx context.Context) {
	for _, f := range in.list() {
		if b, err := readFile(ctx, f.path, false); err == nil {
			in.source.add(f.path, b)
		}
	}
}

// Run watches until ctx ends. Where the kernel has no watch left, it looks at
// intervals alone.
func (in *Inbox) Run(ctx context.Context) error {
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		in.cfg.Logger.Warn("inbox: nothing tells of new files, they are looked for at intervals", "every", in.cfg.Poll, "error", err)
		watch = &fsnotify.Watcher{}
	} else {
		defer watch.Close()
	}
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-watch.Events:
			if ev.Op != fsnotify.Chmod {
				// The last event counts: each begins the wait anew. A file that
				// is written for long holds up no other one for longer than Poll.
				in.wake(look)
			}
			continue
		case err := <-watch.Errors:
			in.cfg.Logger.Warn("inbox: watch", "error", err)
		case <-look.C:
		}
		if err == nil {
			in.follow(watch)
		}
		now := time.Now()
		next := in.scan(ctx, now)
		in.latest = now.Add(in.cfg.Poll)
		look.Reset(max(0, time.Until(next)))
	}
}

// wake has the folders looked at once it has been quiet, and at the latest when
// it would have been without an occasion.
func (in *Inbox) wake(look *time.Timer) {
	look.Reset(max(0, min(in.cfg.Quiet, time.Until(in.latest))))
}

// follow watches the folders that are there now.
func (in *Inbox) follow(watch *fsnotify.Watcher) {
	for _, dir := range in.folders() {
		if err := watch.Add(dir); err != nil {
			in.cfg.Logger.Debug("inbox: watch", "folder", dir, "error", err)
		}
	}
}

// told makes an event of what became of a file.
func (in *Inbox) told(f *file, reason wire.Reason, format string, args ...any) {
	in.cfg.OnEvent(wire.Event{
		Kind: wire.EventTrust, Release: f.target.Release, Plan: f.target.Plan, Reason: reason,
		Message: fmt.Sprintf("bundle %.80q ", filepath.Base(f.path)) + fmt.Sprintf(format, args...),
	})
}
