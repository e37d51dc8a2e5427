package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Rollout is the way of one release to its devices. The plan and the states are
// cloud/rollout's; the registry only keeps them.
type Rollout struct {
	ID      string          `json:"id"`
	Release string          `json:"release"` // path
	Plan    json.RawMessage `json:"plan"`
	State   string          `json:"state"`
	Created time.Time       `json:"created"`
	Updated time.Time       `json:"updated"`
	Reason  string          `json:"reason,omitempty"` // why it is in this state
}

// AddRollout stores a new rollout; an existing id is ErrImmutable.
func (r *Registry) AddRollout(ctx context.Context, ro Rollout) (Rollout, error) {
	if err := errors.Join(checkName("rollout id", ro.ID), checkName("rollout state", ro.State)); err != nil {
		return Rollout{}, err
	}
	plan, err := canonical("rollout plan", ro.Plan, "{}")
	if err != nil {
		return Rollout{}, err
	}
	if _, err := r.Release(ctx, ro.Release); err != nil {
		return Rollout{}, err
	}
	ro.Plan, ro.Created = json.RawMessage(plan), r.now()
	ro.Updated = ro.Created
	err = r.store.change(ctx, AreaRollouts, func(tx *sql.Tx) error {
		return mustTouch(tx.ExecContext(ctx, `INSERT INTO rollouts (id, release, plan, state, created, updated, reason)
			VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
			ro.ID, ro.Release, plan, ro.State, micros(ro.Created), micros(ro.Updated), ro.Reason))
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrImmutable
	}
	if err != nil {
		return Rollout{}, fmt.Errorf("registry: add rollout %q: %w", ro.ID, err)
	}
	return ro, nil
}

const selectRollout = `SELECT id, release, plan, state, created, updated, reason FROM rollouts`

func scanRollout(row row) (ro Rollout, err error) {
	var plan string
	var created, updated int64
	err = row.Scan(&ro.ID, &ro.Release, &plan, &ro.State, &created, &updated, &ro.Reason)
	ro.Plan, ro.Created, ro.Updated = json.RawMessage(plan), instant(created), instant(updated)
	return ro, err
}

// Rollout finds one by id.
func (r *Registry) Rollout(ctx context.Context, id string) (Rollout, error) {
	return r.rollout(ctx, r.store.reader, id)
}

func (r *Registry) rollout(ctx context.Context, q querier, id string) (Rollout, error) {
	ro, err := scanRollout(q.QueryRowContext(ctx, selectRollout+` WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Rollout{}, &NotFoundError{What: "rollout", Name: id, Hint: "drover rollout list shows them"}
	}
	if err != nil {
		return Rollout{}, fmt.Errorf("registry: rollout %q: %w", id, err)
	}
	return ro, nil
}

// Rollouts lists them newest first: all, or those in one of the states.
func (r *Registry) Rollouts(ctx context.Context, states ...string) ([]Rollout, error) {
	all, err := list(ctx, r.store.reader, scanRollout, selectRollout+` ORDER BY created DESC, id`)
	if err != nil {
		return nil, fmt.Errorf("registry: rollouts: %w", err)
	}
	if len(states) == 0 {
		return all, nil
	}
	var out []Rollout
	for _, ro := range all {
		for _, s := range states {
			if ro.State == s {
				out = append(out, ro)
			}
		}
	}
	return out, nil
}

// UpdateRollout changes plan, state and reason of a rollout in one transaction:
// change sees what is stored now and no other process can write in between. An
// error of change is returned as it is and nothing is written. change must not
// use the registry.
func (r *Registry) UpdateRollout(ctx context.Context, id string, change func(*Rollout) error) (Rollout, error) {
	var out Rollout
	err := r.store.change(ctx, AreaRollouts, func(tx *sql.Tx) error {
		ro, err := r.rollout(ctx, tx, id)
		if err != nil {
			return err
		}
		out = ro
		if err := change(&out); err != nil {
			return err
		}
		plan, err := canonical("rollout plan", out.Plan, "{}")
		if err != nil {
			return err
		}
		if err := checkName("rollout state", out.State); err != nil {
			return err
		}
		out.ID, out.Release, out.Created, out.Updated, out.Plan = ro.ID, ro.Release, ro.Created, r.now(), json.RawMessage(plan)
		_, err = tx.ExecContext(ctx, `UPDATE rollouts SET plan = ?, state = ?, updated = ?, reason = ? WHERE id = ?`,
			plan, out.State, micros(out.Updated), out.Reason, id)
		return err
	})
	if err != nil {
		return Rollout{}, err
	}
	return out, nil
}
