package config

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long a file must be left alone before it is read: editors write
// in several steps. The last write is never lost, because every step starts
// the wait anew.
const quiet = 200 * time.Millisecond

// Watcher follows a configuration file.
type Watcher struct {
	Path   string
	Logger *slog.Logger
	// Nudge asks for a reload without a change of the file (SIGHUP).
	Nudge <-chan struct{}
	// Apply gets every good configuration, Refuse the reason why an edit was
	// not taken. Both are called on Run's goroutine.
	Apply  func(Config)
	Refuse func(error)
}

// Run watches until ctx ends. It watches the folder, so that a file replaced by
// rename is followed.
func (w *Watcher) Run(ctx context.Context) error {
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("config: watch %s: %w", w.Path, err)
	}
	defer fs.Close()
	if err := fs.Add(filepath.Dir(w.Path)); err != nil {
		return fmt.Errorf("config: watch %s: %w", filepath.Dir(w.Path), err)
	}
	var settle <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case ev := <-fs.Events:
			if filepath.Clean(ev.Name) == filepath.Clean(w.Path) && !ev.Has(fsnotify.Chmod) {
				settle = time.After(quiet)
			}
		case err := <-fs.Errors:
			w.Logger.Warn("config watch", "error", err)
		case <-w.Nudge:
			settle = time.After(0)
		case <-settle:
			settle = nil
			c, err := Load(w.Path)
			if err != nil {
				w.Refuse(err)
				continue
			}
			w.Apply(c)
		}
	}
}
