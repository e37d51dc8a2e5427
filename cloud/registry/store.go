package registry

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite" // also the database/sql driver "sqlite"
)

//go:embed migrations/*.sql
var migrations embed.FS

// store is the database: the only place that knows which one it is. SQLite has
// one writer at a time, so writes of this process queue on a pool of one
// connection instead of spinning on the file lock, and readers have their own.
type store struct {
	writer *sql.DB
	reader *sql.DB
	serial string // column type of an automatic number
	bytes  string // column type of raw bytes
}

const readers = 4

func openStore(ctx context.Context, path string, busy time.Duration) (*store, error) {
	dsn := func(more ...string) string {
		q := url.Values{"_txlock": {"immediate"}, "_pragma": append([]string{
			fmt.Sprintf("busy_timeout(%d)", busy.Milliseconds()),
			"foreign_keys(1)",
			"journal_mode(WAL)",
			"synchronous(FULL)", // metadata versions that went out must survive a power cut
		}, more...)}
		return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
	}
	w, err := sql.Open("sqlite", dsn())
	if err != nil {
		return nil, err
	}
	w.SetMaxOpenConns(1)
	s := &store{writer: w, serial: "INTEGER PRIMARY KEY AUTOINCREMENT", bytes: "BLOB"}
	if err := s.prepare(ctx, busy); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	s.reader, err = sql.Open("sqlite", dsn("query_only(1)"))
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	s.reader.SetMaxOpenConns(readers)
	return s, nil
}

func (s *store) close() error { return errors.Join(s.reader.Close(), s.writer.Close()) }

// prepare brings the schema up to date. While another process turns the same new
// file into a WAL database, SQLite answers "busy" without waiting; so this waits.
func (s *store) prepare(ctx context.Context, limit time.Duration) error {
	const pause = 20 * time.Millisecond
	for end := time.Now().Add(limit); ; {
		err := s.migrate(ctx)
		if busy, ok := errors.AsType[*sqlite.Error](err); !ok || busy.Code()&0xff != sqliteBusy || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sqliteBusy is SQLITE_BUSY; what stands above the low byte says of what kind.
const sqliteBusy = 5

// migrate applies the migrations that the database has not seen, all in one
// transaction: another process sees the old schema or the new one.
func (s *store) migrate(ctx context.Context) error {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	slices.Sort(names)
	return s.tx(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)`); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM schema_version`).Scan(&have); err != nil {
			return err
		}
		if have > len(names) {
			return fmt.Errorf("%w: schema %d, this program knows %d; update drover", ErrNewerSchema, have, len(names))
		}
		for i, name := range names[have:] {
			text, err := migrations.ReadFile(name)
			if err != nil {
				return err
			}
			ddl := strings.NewReplacer("{{serial}}", s.serial, "{{bytes}}", s.bytes).Replace(string(text))
			if _, err := tx.ExecContext(ctx, ddl); err != nil {
				return fmt.Errorf("migration %s: %w", name, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO schema_version (version) VALUES (?)`, have+i+1); err != nil {
				return err
			}
		}
		return nil
	})
}

// tx runs do in a write transaction, which is committed when do returns nil.
// do must not use the store by other ways: the pool has one connection.
func (s *store) tx(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// change is tx that also counts in area, so that other processes notice.
func (s *store) change(ctx context.Context, area Area, do func(*sql.Tx) error) error {
	return s.tx(ctx, func(tx *sql.Tx) error {
		if err := do(tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO changes (area, n) VALUES (?, 1)
			ON CONFLICT (area) DO UPDATE SET n = changes.n + 1`, string(area))
		return err
	})
}

// querier is what reads have in common with and without a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// row is *sql.Row or *sql.Rows.
type row interface{ Scan(dest ...any) error }

// list runs a query and collects what scan makes of each row.
func list[T any](ctx context.Context, q querier, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // an error of Close is in rows.Err too
	var out []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

func scanString(r row) (string, error) {
	var s string
	err := r.Scan(&s)
	return s, err
}
