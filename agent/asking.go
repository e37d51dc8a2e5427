package agent

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/trust"
)

// How soon metadata that is missing is asked for, and how seldom it gets.
const (
	firstAsk = 5 * time.Second
	maxAsk   = 10 * time.Minute
)

// topics is the part of a link that asking needs.
type topics interface {
	Subscribe(ctx context.Context, filter string, qos byte, handle link.Handler) error
	Unsubscribe(ctx context.Context, filter string) error
}

// asker subscribes again to retained metadata that the verifier waits for. A
// broker sends such a message once per subscription: one that was lost, or
// found no room here, would else not come before the next session.
type asker struct {
	fleet  wire.Topics
	link   topics
	handle link.Handler
	log    *slog.Logger

	missing chan *trust.MissingError // cap 1: the newest; nil: nothing is missing
}

// tell says what the verifier waits for; nil for nothing. It does not block.
// One goroutine calls it.
func (a *asker) tell(m *trust.MissingError) {
	select {
	case <-a.missing:
	default:
	}
	a.missing <- m
}

// run asks until ctx ends.
func (a *asker) run(ctx context.Context) error {
	var (
		missing trust.MissingError // zero: nothing
		asked   string             // the filter subscribed to
		pause   time.Duration
	)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-a.missing:
			if m != nil && *m == missing {
				continue // goes on being asked for, at its pace
			}
			timer.Stop()
			a.leave(ctx, asked)
			missing, asked = trust.MissingError{}, ""
			if m != nil {
				missing, pause = *m, firstAsk
				timer.Reset(pause)
			}
		case <-timer.C:
			asked = a.fleet.TrustRole(missing.Role, missing.Version)
			a.log.Info("asks for metadata again", "role", missing.Role, "version", missing.Version)
			if err := a.link.Subscribe(ctx, asked, 1, a.handle); err != nil {
				a.log.Debug("subscribe", "topic", asked, "error", err)
			}
			pause = min(2*pause, maxAsk)
			timer.Reset(pause)
		}
	}
}

func (a *asker) leave(ctx context.Context, filter string) {
	if filter == "" {
		return
	}
	if err := a.link.Unsubscribe(ctx, filter); err != nil {
		a.log.Debug("unsubscribe", "topic", filter, "error", err)
	}
}

// overheard is a verifier whose waits the asker hears.
type overheard struct {
	ota.Trust
	asker *asker
}

// Refresh implements ota.Trust.
func (o overheard) Refresh() error {
	err := o.Trust.Refresh()
	m, _ := errors.AsType[*trust.MissingError](err)
	o.asker.tell(m)
	return err
}
