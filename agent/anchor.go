package agent

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/config"
	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/anchor"
)

// epochEvery is how often the anchor is asked whether it still is what it was.
// A TPM is slow and shared: State and page read the last answer instead.
const epochEvery = 30 * time.Second

// epochWatch is the device's anchor, and its last answer. It is safe for
// concurrent use.
type epochWatch struct {
	anchor.Anchor
	log *slog.Logger

	mu    sync.Mutex
	epoch uint64
	err   error
}

// openAnchor opens the anchor in the state folder and asks it once.
func openAnchor(ctx context.Context, cfg config.Config, log *slog.Logger) (*epochWatch, error) {
	a, err := anchor.Open(ctx, anchor.Options{
		Device: cfg.Anchor.TPM, TakeOwner: cfg.Anchor.TakeOwner, Dir: filepath.Join(cfg.State, "anchor"), Logger: log,
	})
	if err != nil {
		return nil, err
	}
	w := &epochWatch{Anchor: a, log: log}
	_, _ = w.Epoch() // told by last
	return w, nil
}

// Epoch asks the anchor and remembers what it says.
func (w *epochWatch) Epoch() (uint64, error) {
	e, err := w.Anchor.Epoch()
	w.remember(e, err)
	return e, err
}

// Raise lifts the epoch and asks where it stands then.
func (w *epochWatch) Raise(to uint64) error {
	if err := w.Anchor.Raise(to); err != nil {
		return err
	}
	_, err := w.Epoch()
	return err
}

// remember keeps an answer, and the last known epoch beside an error.
func (w *epochWatch) remember(e uint64, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.epoch = e
	}
	if (err == nil) != (w.err == nil) {
		w.log.Info("anchor", "epoch", w.epoch, "assurance", w.Assurance(), "err", err)
	}
	w.err = err
}

// last is the last answer. It does not block on the TPM.
func (w *epochWatch) last() (uint64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.epoch, w.err
}

// run asks now and then, until ctx ends, and tells when the answer is another
// one.
func (w *epochWatch) run(ctx context.Context, changed func()) error {
	tick := time.NewTicker(epochEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		e, err := w.last()
		_, _ = w.Epoch() // told by last
		if now, nerr := w.last(); now != e || (nerr == nil) != (err == nil) {
			changed()
		}
	}
}

// deviceKey is the anchor's key, or the one in a file where the anchor holds
// none. An anchor that should hold it and does not give it is waited for: a
// key in a file would be another device.
func (a *Agent) deviceKey(ctx context.Context, dir string) (crypto.Signer, error) {
	for pause, told := time.Second, ""; ; pause = min(pause*3/2, 15*time.Second) {
		key, err := a.anchor.Signer()
		if err == nil {
			return key, nil
		}
		if errors.Is(err, anchor.ErrNoKey) {
			return enroll.SoftwareKey(dir)
		}
		a.setLinkState(link.State{Err: err})
		if err.Error() != told {
			told = err.Error()
			a.event(wire.Event{Kind: wire.EventStart, Message: "the device key cannot be used: " + told})
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
