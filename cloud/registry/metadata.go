package registry

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// MaxMetadataBytes bounds one metadata file.
const MaxMetadataBytes = 4 << 20

// Metadata is one signed version of a trust role, as its bytes. The registry
// does not look into them.
type Metadata struct {
	Role    string
	Version int64
	Bytes   []byte
	Created time.Time
}

// AppendMetadata adds a version of a role. Versions only grow. The same bytes
// under the same version again change nothing; other bytes, or a version that is not
// above the newest, are ErrImmutable: devices may have seen it.
func (r *Registry) AppendMetadata(ctx context.Context, role string, version int64, data []byte) error {
	return r.PublishMetadata(ctx, nil, Metadata{Role: role, Version: version, Bytes: data})
}

// PublishMetadata appends several in one transaction: a snapshot never appears
// without what it lists. With a lease it commits only while the lease is still
// held, so that of two publishers only one gives out versions; ErrLeaseHeld
// otherwise. Created is set by the registry.
func (r *Registry) PublishMetadata(ctx context.Context, guard *Lease, ms ...Metadata) error {
	for _, m := range ms {
		if err := checkName("role", m.Role); err != nil {
			return err
		}
		if m.Version < 1 || len(m.Bytes) == 0 {
			return invalid("metadata %s version %d with %d bytes", m.Role, m.Version, len(m.Bytes))
		}
		if len(m.Bytes) > MaxMetadataBytes {
			return fmt.Errorf("registry: metadata %s version %d: %w: %d bytes, allowed %d", m.Role, m.Version, ErrTooLarge, len(m.Bytes), MaxMetadataBytes)
		}
	}
	err := r.store.change(ctx, AreaMetadata, func(tx *sql.Tx) error {
		if guard != nil {
			if err := r.holds(ctx, tx, *guard); err != nil {
				return err
			}
		}
		for _, m := range ms {
			if err := r.appendOne(ctx, tx, m); err != nil {
				return fmt.Errorf("%s version %d: %w", m.Role, m.Version, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("registry: append metadata: %w", err)
	}
	return nil
}

func (r *Registry) appendOne(ctx context.Context, tx *sql.Tx, m Metadata) error {
	have, err := scanMetadata(tx.QueryRowContext(ctx, selectMetadata+` WHERE role = ? AND version >= ? ORDER BY version LIMIT 1`, m.Role, m.Version))
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return err
	case have.Version != m.Version:
		return fmt.Errorf("%w: version %d is there already, and versions only grow", ErrImmutable, have.Version)
	case !bytes.Equal(have.Bytes, m.Bytes):
		return ErrImmutable
	default:
		return nil
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO metadata (role, version, bytes, created) VALUES (?, ?, ?, ?)`,
		m.Role, m.Version, m.Bytes, micros(r.now()))
	return err
}

const selectMetadata = `SELECT role, version, bytes, created FROM metadata`

func scanMetadata(row row) (m Metadata, err error) {
	var created int64
	err = row.Scan(&m.Role, &m.Version, &m.Bytes, &created)
	m.Created = instant(created)
	return m, err
}

// LatestMetadata is the newest version of a role; ErrNotFound if it has none.
func (r *Registry) LatestMetadata(ctx context.Context, role string) (Metadata, error) {
	return r.oneMetadata(ctx, role, "", `role = ? ORDER BY version DESC LIMIT 1`, role)
}

// Metadata is one version of a role.
func (r *Registry) Metadata(ctx context.Context, role string, version int64) (Metadata, error) {
	return r.oneMetadata(ctx, role, "@"+strconv.FormatInt(version, 10), `role = ? AND version = ?`, role, version)
}

func (r *Registry) oneMetadata(ctx context.Context, role, suffix, where string, args ...any) (Metadata, error) {
	m, err := scanMetadata(r.store.reader.QueryRowContext(ctx, selectMetadata+` WHERE `+where, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return Metadata{}, &NotFoundError{What: "metadata", Name: role + suffix, Hint: "a fleet is made by drover init"}
	}
	if err != nil {
		return Metadata{}, fmt.Errorf("registry: metadata %s: %w", role+suffix, err)
	}
	return m, nil
}

// AllLatestMetadata is the newest version of every role, by role name.
func (r *Registry) AllLatestMetadata(ctx context.Context) ([]Metadata, error) {
	ms, err := list(ctx, r.store.reader, scanMetadata, selectMetadata+` AS m WHERE version =
		(SELECT MAX(version) FROM metadata WHERE role = m.role) ORDER BY role`)
	if err != nil {
		return nil, fmt.Errorf("registry: metadata: %w", err)
	}
	return ms, nil
}

// MetadataVersions lists the stored versions of a role, oldest first.
func (r *Registry) MetadataVersions(ctx context.Context, role string) ([]int64, error) {
	vs, err := list(ctx, r.store.reader, func(row row) (v int64, err error) {
		err = row.Scan(&v)
		return v, err
	}, `SELECT version FROM metadata WHERE role = ? ORDER BY version`, role)
	if err != nil {
		return nil, fmt.Errorf("registry: metadata versions of %s: %w", role, err)
	}
	return vs, nil
}

// PruneMetadata forgets all but the newest keep versions of a role and says how
// many. It is for timestamps, which are renewed all day; the newest is never
// forgotten.
func (r *Registry) PruneMetadata(ctx context.Context, role string, keep int) (int64, error) {
	var n int64
	err := r.store.tx(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `DELETE FROM metadata WHERE role = ? AND version NOT IN
			(SELECT version FROM metadata WHERE role = ? ORDER BY version DESC LIMIT ?)`, role, role, max(keep, 1))
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("registry: prune metadata of %s: %w", role, err)
	}
	return n, nil
}
