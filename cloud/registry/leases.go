package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Lease is the right of one process to do something alone for a while: to
// publish timestamps, to ingest a shard. It ends by itself when it is not
// renewed. Term grows by one with every change of holder and serves as fencing
// token.
type Lease struct {
	Name   string
	Holder string
	Until  time.Time
	Term   int64
}

// AcquireLease takes a free or lapsed lease, or renews one's own, for ttl. It
// is ErrLeaseHeld while another holder has it. One statement decides, so of
// many that try at once exactly one wins.
func (r *Registry) AcquireLease(ctx context.Context, name, holder string, ttl time.Duration) (Lease, error) {
	if err := errors.Join(checkName("lease", name), checkName("lease holder", holder)); err != nil {
		return Lease{}, err
	}
	if ttl <= 0 {
		return Lease{}, invalid("lease %q for %v", name, ttl)
	}
	now := r.now()
	l := Lease{Name: name, Holder: holder, Until: now.Add(ttl).Truncate(time.Microsecond)}
	err := r.store.writer.QueryRowContext(ctx, `INSERT INTO leases (name, holder, until, term) VALUES (?, ?, ?, 1)
		ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
			term = leases.term + CASE WHEN leases.holder = excluded.holder THEN 0 ELSE 1 END
		WHERE leases.holder = excluded.holder OR leases.until <= ?
		RETURNING term`, name, holder, micros(l.Until), micros(now)).Scan(&l.Term)
	if errors.Is(err, sql.ErrNoRows) {
		return Lease{}, fmt.Errorf("registry: lease %q: %w", name, ErrLeaseHeld)
	}
	if err != nil {
		return Lease{}, fmt.Errorf("registry: lease %q: %w", name, err)
	}
	return l, nil
}

// RenewLease extends a lease that is still one's own in the same term, lapsed
// or not; ErrLeaseHeld when another holder came in between.
func (r *Registry) RenewLease(ctx context.Context, l Lease, ttl time.Duration) (Lease, error) {
	if ttl <= 0 {
		return Lease{}, invalid("lease %q for %v", l.Name, ttl)
	}
	l.Until = r.now().Add(ttl).Truncate(time.Microsecond)
	res, err := r.store.writer.ExecContext(ctx, `UPDATE leases SET until = ? WHERE name = ? AND holder = ? AND term = ?`,
		micros(l.Until), l.Name, l.Holder, l.Term)
	if err = mustTouch(res, err); errors.Is(err, sql.ErrNoRows) {
		err = ErrLeaseHeld
	}
	if err != nil {
		return Lease{}, fmt.Errorf("registry: renew lease %q: %w", l.Name, err)
	}
	return l, nil
}

// ReleaseLease gives a lease back; one that is no longer held is no error.
func (r *Registry) ReleaseLease(ctx context.Context, l Lease) error {
	if _, err := r.store.writer.ExecContext(ctx, `UPDATE leases SET until = 0 WHERE name = ? AND holder = ? AND term = ?`,
		l.Name, l.Holder, l.Term); err != nil {
		return fmt.Errorf("registry: release lease %q: %w", l.Name, err)
	}
	return nil
}

// Lease says who holds a lease now; ErrNotFound if nobody does.
func (r *Registry) Lease(ctx context.Context, name string) (Lease, error) {
	l := Lease{Name: name}
	var until int64
	err := r.store.reader.QueryRowContext(ctx, `SELECT holder, until, term FROM leases WHERE name = ? AND until > ?`,
		name, micros(r.now())).Scan(&l.Holder, &until, &l.Term)
	if errors.Is(err, sql.ErrNoRows) {
		return Lease{}, &NotFoundError{What: "lease", Name: name, Hint: "nobody holds it"}
	}
	if err != nil {
		return Lease{}, fmt.Errorf("registry: lease %q: %w", name, err)
	}
	l.Until = instant(until)
	return l, nil
}

// holds is the check inside a transaction that depends on a lease.
func (r *Registry) holds(ctx context.Context, tx *sql.Tx, l Lease) error {
	var one int
	err := tx.QueryRowContext(ctx, `SELECT 1 FROM leases WHERE name = ? AND holder = ? AND term = ? AND until > ?`,
		l.Name, l.Holder, l.Term, micros(r.now())).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("lease %q of %q: %w, or has lapsed", l.Name, l.Holder, ErrLeaseHeld)
	}
	return err
}
