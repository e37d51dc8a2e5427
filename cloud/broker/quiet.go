package broker

import (
	"context"
	"log/slog"
)

// quiet is what the server logs to. The server logs whole packets, payload
// included, and greets at level Info: packets are left out, and everything is
// lowered by one level, for what matters is logged by the hook.
type quiet struct{ inner slog.Handler }

func lowered(l slog.Level) slog.Level { return l - 4 }

// Enabled implements slog.Handler.
func (q *quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return q.inner.Enabled(ctx, lowered(l))
}

// Handle implements slog.Handler.
func (q *quiet) Handle(ctx context.Context, r slog.Record) error {
	n := slog.NewRecord(r.Time, lowered(r.Level), "mqtt: "+r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "pk", "packet", "will":
		default:
			n.AddAttrs(a)
		}
		return true
	})
	return q.inner.Handle(ctx, n)
}

// WithAttrs implements slog.Handler.
func (q *quiet) WithAttrs(a []slog.Attr) slog.Handler { return &quiet{q.inner.WithAttrs(a)} }

// WithGroup implements slog.Handler.
func (q *quiet) WithGroup(name string) slog.Handler { return &quiet{q.inner.WithGroup(name)} }
