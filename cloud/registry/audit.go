package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// AuditEntry is one act of an operator or a hub, for later questions.
type AuditEntry struct {
	ID    int64           `json:"id"`
	At    time.Time       `json:"at"`
	Actor string          `json:"actor"`
	Act   string          `json:"act"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Audit records an act. body is anything that encodes to JSON, or nil.
func (r *Registry) Audit(ctx context.Context, actor, act string, body any) error {
	if err := errors.Join(checkName("actor", actor), checkName("act", act)); err != nil {
		return err
	}
	text, err := encode("audit body", body)
	if err != nil {
		return err
	}
	err = r.store.tx(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO audit (at, actor, act, body) VALUES (?, ?, ?, ?)`, micros(r.now()), actor, act, text)
		return err
	})
	if err != nil {
		return fmt.Errorf("registry: audit %q: %w", act, err)
	}
	return nil
}

// AuditLog lists the newest entries first, at most limit.
func (r *Registry) AuditLog(ctx context.Context, limit int) ([]AuditEntry, error) {
	es, err := list(ctx, r.store.reader, func(row row) (e AuditEntry, err error) {
		var at int64
		var body string
		err = row.Scan(&e.ID, &at, &e.Actor, &e.Act, &body)
		e.At, e.Body = instant(at), json.RawMessage(body)
		return e, err
	}, `SELECT id, at, actor, act, body FROM audit ORDER BY id DESC LIMIT ?`, limit)
	if err != nil {
		return nil, fmt.Errorf("registry: audit log: %w", err)
	}
	return es, nil
}
