package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/trust"
)

// asks notes what is subscribed to, and when, in seconds.
type asks struct {
	began time.Time
	notes []string
}

func (a *asks) Subscribe(_ context.Context, filter string, _ byte, _ link.Handler) error {
	a.notes = append(a.notes, filter+" after "+time.Since(a.began).String())
	return errors.New("the session ended")
}

func (a *asks) Unsubscribe(_ context.Context, filter string) error {
	a.notes = append(a.notes, "not "+filter)
	return nil
}

// waiting is a verifier that answers one error.
type waiting struct {
	ota.Trust
	err error
}

func (w *waiting) Refresh() error { return w.err }

func TestMissingMetadataIsAskedForAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broker := &asks{began: time.Now()}
		a := &asker{fleet: wire.Topics{Fleet: "f"}, link: broker, log: slog.New(slog.DiscardHandler), missing: make(chan *trust.MissingError, 1)}
		v := &waiting{}
		o := overheard{Trust: v, asker: a}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.run(ctx) }()

		v.err = errors.Join(ota.ErrWait, &trust.MissingError{Role: "models", Version: 3})
		for range 20 { // as often as messages come
			if err := o.Refresh(); !errors.Is(err, ota.ErrWait) {
				t.Error("the wait is lost")
			}
			time.Sleep(time.Second)
		}
		v.err = &ota.Refusal{Err: errors.Join(trust.ErrSignature, &trust.MissingError{Role: "root", Version: 2})}
		_ = o.Refresh()
		time.Sleep(6 * time.Second)
		v.err = nil
		_ = o.Refresh()
		time.Sleep(time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		want := []string{
			"drover/v1/f/trust/models/3 after 5s", "drover/v1/f/trust/models/3 after 15s", "not drover/v1/f/trust/models/3",
			"drover/v1/f/trust/root/2 after 25s", "not drover/v1/f/trust/root/2",
		}
		if !slices.Equal(broker.notes, want) {
			t.Errorf("asked %q, want %q", broker.notes, want)
		}
	})
}
