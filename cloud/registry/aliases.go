package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
)

// Alias is a movable name for a version of a model: "production", "candidate".
type Alias struct {
	Model   string `json:"model"`
	Alias   string `json:"alias"`
	Version int    `json:"version"`
}

// SetAlias points an alias at a version that exists. Moving it is one atomic
// step.
func (r *Registry) SetAlias(ctx context.Context, model, alias string, version int) error {
	if err := checkName("alias", alias); err != nil {
		return err
	}
	if _, err := strconv.Atoi(alias); err == nil || alias == "latest" {
		return invalid("alias %q would be read as a version", alias)
	}
	if _, err := r.Model(ctx, model, strconv.Itoa(version)); err != nil {
		return err
	}
	err := r.store.change(ctx, AreaModels, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO aliases (model, alias, version) VALUES (?, ?, ?)
			ON CONFLICT (model, alias) DO UPDATE SET version = excluded.version`, model, alias, version)
		return err
	})
	if err != nil {
		return fmt.Errorf("registry: set alias %s@%s: %w", model, alias, err)
	}
	return nil
}

// RemoveAlias forgets an alias; ErrNotFound if there is none.
func (r *Registry) RemoveAlias(ctx context.Context, model, alias string) error {
	err := r.store.change(ctx, AreaModels, func(tx *sql.Tx) error {
		return mustTouch(tx.ExecContext(ctx, `DELETE FROM aliases WHERE model = ? AND alias = ?`, model, alias))
	})
	if errors.Is(err, sql.ErrNoRows) {
		return &NotFoundError{What: "alias", Name: model + "@" + alias}
	}
	if err != nil {
		return fmt.Errorf("registry: remove alias %s@%s: %w", model, alias, err)
	}
	return nil
}

// Aliases lists all aliases, or those of one model if it is not empty.
func (r *Registry) Aliases(ctx context.Context, model string) ([]Alias, error) {
	as, err := list(ctx, r.store.reader, func(row row) (a Alias, err error) {
		err = row.Scan(&a.Model, &a.Alias, &a.Version)
		return a, err
	}, `SELECT model, alias, version FROM aliases WHERE (? = '' OR model = ?) ORDER BY model, alias`, model, model)
	if err != nil {
		return nil, fmt.Errorf("registry: aliases: %w", err)
	}
	return as, nil
}

// mustTouch turns "no row was affected" into sql.ErrNoRows.
func mustTouch(res sql.Result, err error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		err = sql.ErrNoRows
	}
	return err
}
