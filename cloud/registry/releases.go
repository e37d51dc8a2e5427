package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ReleaseState says whether a release may still be rolled out.
type ReleaseState string

// The states of a release.
const (
	ReleaseActive  ReleaseState = "active"
	ReleaseRevoked ReleaseState = "revoked"
)

// Release is a model version made ready for devices: a signed manifest under a
// target path. Only its State may change.
type Release struct {
	Path     string       `json:"path"` // of the TUF target
	Model    string       `json:"model"`
	Version  int          `json:"version"`
	Epoch    int64        `json:"epoch"`    // security epoch, ≥ 0
	Manifest string       `json:"manifest"` // digest of a stored blob
	Created  time.Time    `json:"created"`
	State    ReleaseState `json:"state"`
}

// AddRelease stores a release of a registered model; the manifest must have
// been stored before. State "" means ReleaseActive. Adding the same again
// changes nothing; other content under the same path is ErrImmutable.
func (r *Registry) AddRelease(ctx context.Context, rel Release) (Release, error) {
	if err := checkName("release path", rel.Path); err != nil {
		return Release{}, err
	}
	if rel.Epoch < 0 {
		return Release{}, invalid("release %q: epoch %d", rel.Path, rel.Epoch)
	}
	if rel.State == "" {
		rel.State = ReleaseActive
	}
	if _, err := r.Model(ctx, rel.Model, strconv.Itoa(rel.Version)); err != nil {
		return Release{}, err
	}
	if _, err := r.Blob(ctx, rel.Manifest); err != nil {
		return Release{}, fmt.Errorf("registry: add release %q: its manifest: %w", rel.Path, err)
	}
	var out Release
	err := r.store.change(ctx, AreaReleases, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO releases (path, model, version, epoch, manifest, created, state)
			VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO NOTHING`,
			rel.Path, rel.Model, rel.Version, rel.Epoch, rel.Manifest, micros(r.now()), string(rel.State)); err != nil {
			return err
		}
		var err error
		if out, err = scanRelease(tx.QueryRowContext(ctx, selectRelease+` WHERE path = ?`, rel.Path)); err != nil {
			return err
		}
		same := out
		same.Created, same.State = rel.Created, rel.State
		if same != rel {
			return ErrImmutable
		}
		return nil
	})
	if err != nil {
		return Release{}, fmt.Errorf("registry: add release %q: %w", rel.Path, err)
	}
	return out, nil
}

const selectRelease = `SELECT path, model, version, epoch, manifest, created, state FROM releases`

func scanRelease(row row) (rel Release, err error) {
	var created int64
	err = row.Scan(&rel.Path, &rel.Model, &rel.Version, &rel.Epoch, &rel.Manifest, &created, &rel.State)
	rel.Created = instant(created)
	return rel, err
}

// Release finds one by its path.
func (r *Registry) Release(ctx context.Context, path string) (Release, error) {
	rel, err := scanRelease(r.store.reader.QueryRowContext(ctx, selectRelease+` WHERE path = ?`, path))
	if errors.Is(err, sql.ErrNoRows) {
		return Release{}, r.noRelease(ctx, path)
	}
	if err != nil {
		return Release{}, fmt.Errorf("registry: release %q: %w", path, err)
	}
	return rel, nil
}

func (r *Registry) noRelease(ctx context.Context, path string) error {
	e := &NotFoundError{What: "release", Name: path, Hint: "no release was made yet"}
	paths, err := list(ctx, r.store.reader, scanString, `SELECT path FROM releases ORDER BY created DESC, path LIMIT 10`)
	if err != nil {
		return errors.Join(e, err)
	}
	if len(paths) > 0 {
		e.Hint = "newest releases: " + strings.Join(paths, ", ")
	}
	return e
}

// Releases lists them newest first, all or those of one model if it is not
// empty.
func (r *Registry) Releases(ctx context.Context, model string) ([]Release, error) {
	rs, err := list(ctx, r.store.reader, scanRelease, selectRelease+` WHERE (? = '' OR model = ?) ORDER BY created DESC, path`, model, model)
	if err != nil {
		return nil, fmt.Errorf("registry: releases: %w", err)
	}
	return rs, nil
}

// SetReleaseState changes what may change of a release.
func (r *Registry) SetReleaseState(ctx context.Context, path string, state ReleaseState) error {
	if state != ReleaseActive && state != ReleaseRevoked {
		return invalid("release state %q (active or revoked)", state)
	}
	err := r.store.change(ctx, AreaReleases, func(tx *sql.Tx) error {
		return mustTouch(tx.ExecContext(ctx, `UPDATE releases SET state = ? WHERE path = ?`, string(state), path))
	})
	if errors.Is(err, sql.ErrNoRows) {
		return r.noRelease(ctx, path)
	}
	if err != nil {
		return fmt.Errorf("registry: release %q: %w", path, err)
	}
	return nil
}
