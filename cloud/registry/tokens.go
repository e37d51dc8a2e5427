package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Token allows the enrolment of devices. Only the digest of the secret is
// stored.
type Token struct {
	Hash     string            `json:"hash"` // SHA-256 of the secret, lower-case hex
	Created  time.Time         `json:"created"`
	Expires  time.Time         `json:"expires"`
	UsesLeft int               `json:"uses_left"`
	Labels   map[string]string `json:"labels,omitempty"`  // given to the devices it enrols
	UsedBy   []string          `json:"used_by,omitempty"` // device ids, oldest first
}

// CreateToken stores a new token; Created and UsedBy are the registry's.
func (r *Registry) CreateToken(ctx context.Context, t Token) error {
	if err := checkDigest(t.Hash); err != nil {
		return err
	}
	if t.UsesLeft < 1 || !t.Expires.After(r.now()) {
		return invalid("token with %d uses that expires %v", t.UsesLeft, t.Expires)
	}
	labels, err := encodeLabels(t.Labels)
	if err != nil {
		return err
	}
	err = r.store.change(ctx, AreaTokens, func(tx *sql.Tx) error {
		return mustTouch(tx.ExecContext(ctx, `INSERT INTO tokens (hash, created, expires, uses_left, labels) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (hash) DO NOTHING`, t.Hash, micros(r.now()), micros(t.Expires), t.UsesLeft, labels))
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrImmutable
	}
	if err != nil {
		return fmt.Errorf("registry: create token: %w", err)
	}
	return nil
}

// ConsumeToken takes one use of a token for a device, or refuses: ErrNotFound,
// ErrTokenLapsed, ErrTokenSpent. Of many that try the last use at once exactly
// one gets it.
func (r *Registry) ConsumeToken(ctx context.Context, hash, device string) (Token, error) {
	if err := checkName("device id", device); err != nil {
		return Token{}, err
	}
	now := micros(r.now())
	var t Token
	err := r.store.change(ctx, AreaTokens, func(tx *sql.Tx) error {
		err := mustTouch(tx.ExecContext(ctx, `UPDATE tokens SET uses_left = uses_left - 1 WHERE hash = ? AND uses_left > 0 AND expires > ?`, hash, now))
		if err == nil {
			if _, err := tx.ExecContext(ctx, `INSERT INTO token_uses (hash, device, at) VALUES (?, ?, ?)`, hash, device, now); err != nil {
				return err
			}
			t, err = readToken(ctx, tx, hash)
			return err
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		have, err := readToken(ctx, tx, hash)
		if err != nil {
			return err
		}
		if micros(have.Expires) <= now {
			return fmt.Errorf("%w on %s; make a new one with drover enroll", ErrTokenLapsed, have.Expires.Format(time.RFC3339))
		}
		return fmt.Errorf("%w; make a new one with drover enroll", ErrTokenSpent)
	})
	if err != nil {
		return Token{}, fmt.Errorf("registry: consume token: %w", err)
	}
	return t, nil
}

// Tokens lists all, newest first.
func (r *Registry) Tokens(ctx context.Context) ([]Token, error) {
	hashes, err := list(ctx, r.store.reader, scanString, `SELECT hash FROM tokens ORDER BY created DESC, hash`)
	if err != nil {
		return nil, fmt.Errorf("registry: tokens: %w", err)
	}
	var out []Token
	for _, h := range hashes {
		t, err := readToken(ctx, r.store.reader, h)
		if err != nil {
			return nil, fmt.Errorf("registry: tokens: %w", err)
		}
		out = append(out, t)
	}
	return out, nil
}

func readToken(ctx context.Context, q querier, hash string) (Token, error) {
	t := Token{Hash: hash}
	var created, expires int64
	var labels string
	err := q.QueryRowContext(ctx, `SELECT created, expires, uses_left, labels FROM tokens WHERE hash = ?`, hash).Scan(&created, &expires, &t.UsesLeft, &labels)
	if errors.Is(err, sql.ErrNoRows) {
		return Token{}, &NotFoundError{What: "token", Name: hash, Hint: "make one with drover enroll"}
	}
	if err != nil {
		return Token{}, err
	}
	t.Created, t.Expires = instant(created), instant(expires)
	if err := json.Unmarshal([]byte(labels), &t.Labels); err != nil {
		return Token{}, err
	}
	t.UsedBy, err = list(ctx, q, scanString, `SELECT device FROM token_uses WHERE hash = ? ORDER BY at, device`, hash)
	return t, err
}
