package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/config"
	"github.com/droverhq/drover/ota/anchor"
)

func testAnchor(t *testing.T) (*epochWatch, string) {
	t.Helper()
	cfg := config.Default()
	cfg.State, cfg.Anchor.TPM = t.TempDir(), anchor.Off
	w, err := openAnchor(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w, filepath.Join(cfg.State, "anchor")
}

func TestLastFollowsWhatIsAsked(t *testing.T) {
	w, _ := testAnchor(t)
	if e, err := w.last(); e != 0 || err != nil {
		t.Fatal(e, err)
	}
	if err := w.Raise(3); err != nil {
		t.Fatal(err)
	}
	if e, err := w.last(); e != 3 || err != nil {
		t.Fatal(e, err)
	}
}

// A damaged anchor is noticed without anybody asking, and so is its return.
func TestTheAnchorIsWatched(t *testing.T) {
	w, dir := testAnchor(t)
	if err := w.Raise(3); err != nil {
		t.Fatal(err)
	}
	aside := filepath.Join(t.TempDir(), "aside")
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var changes atomic.Int32
		done := make(chan error, 1)
		go func() { done <- w.run(ctx, func() { changes.Add(1) }) }()
		time.Sleep(epochEvery + time.Second)
		synctest.Wait()
		if changes.Load() != 0 {
			t.Errorf("%d changes where nothing changed", changes.Load())
		}
		if err := os.Rename(dir, aside); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * epochEvery)
		synctest.Wait()
		if e, err := w.last(); e != 3 || !errors.Is(err, anchor.ErrTampered) || changes.Load() != 1 {
			t.Errorf("epoch %d, %v, %d changes", e, err, changes.Load())
		}
		if err := os.Rename(aside, dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(epochEvery)
		synctest.Wait()
		if e, err := w.last(); e != 3 || err != nil || changes.Load() != 2 {
			t.Errorf("epoch %d, %v, %d changes", e, err, changes.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
