package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Event is something a device did or suffered.
type Event struct {
	ID      int64           `json:"id"` // the registry's, growing
	Device  string          `json:"device"`
	Boot    string          `json:"boot"`
	Seq     int64           `json:"seq"` // of the device, within the boot
	At      time.Time       `json:"at"`
	Kind    string          `json:"kind"`
	Release string          `json:"release,omitempty"` // path, if it concerns one
	Body    json.RawMessage `json:"body,omitempty"`
}

// AddEvent stores an event once, however often it is delivered; added is false
// for one that is there. An event of an unknown device is ErrNotFound.
func (r *Registry) AddEvent(ctx context.Context, e Event) (added bool, err error) {
	n, err := r.AddEvents(ctx, []Event{e})
	return n == 1, err
}

// AddEvents is AddEvent of many in one transaction, which is much faster than
// one by one. It says how many were new.
func (r *Registry) AddEvents(ctx context.Context, es []Event) (added int, err error) {
	bodies := make([]string, len(es))
	for i, e := range es {
		if err := errors.Join(checkName("device id", e.Device), checkName("event kind", e.Kind)); err != nil {
			return 0, err
		}
		if bodies[i], err = canonical("event body", e.Body, ""); err != nil {
			return 0, err
		}
	}
	err = r.store.change(ctx, AreaReports, func(tx *sql.Tx) error {
		added = 0
		for i, e := range es {
			var known int
			if err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM devices WHERE id = ?`, e.Device).Scan(&known); err != nil {
				return err
			}
			if known == 0 {
				return noDevice(e.Device)
			}
			if e.At.IsZero() {
				e.At = r.now()
			}
			res, err := tx.ExecContext(ctx, `INSERT INTO events (device, boot, seq, at, kind, release, body) VALUES (?, ?, ?, ?, ?, ?, ?)
				ON CONFLICT (device, boot, seq) DO NOTHING`, e.Device, e.Boot, e.Seq, micros(e.At), e.Kind, e.Release, bodies[i])
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			added += int(n)
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("registry: add event: %w", err)
	}
	return added, nil
}

// EventFilter narrows a list; zero fields do not. With After the list goes
// forward from that id, which is how a hub follows; without, newest first.
type EventFilter struct {
	Device  string
	Kind    string
	Release string
	After   int64
	Limit   int // 0 means 100
}

// Events lists events.
func (r *Registry) Events(ctx context.Context, f EventFilter) ([]Event, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	order := ` ORDER BY id DESC`
	if f.After > 0 {
		order = ` ORDER BY id`
	}
	es, err := list(ctx, r.store.reader, scanEvent, `SELECT id, device, boot, seq, at, kind, release, body FROM events
		WHERE (? = '' OR device = ?) AND (? = '' OR kind = ?) AND (? = '' OR release = ?) AND id > ?`+order+` LIMIT ?`,
		f.Device, f.Device, f.Kind, f.Kind, f.Release, f.Release, f.After, f.Limit)
	if err != nil {
		return nil, fmt.Errorf("registry: events: %w", err)
	}
	return es, nil
}

func scanEvent(row row) (e Event, err error) {
	var at int64
	var body string
	err = row.Scan(&e.ID, &e.Device, &e.Boot, &e.Seq, &at, &e.Kind, &e.Release, &body)
	e.At = instant(at)
	if body != "" {
		e.Body = json.RawMessage(body)
	}
	return e, err
}
