package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/infer"
)

// Model is one version of a classifier with its lineage. It never changes.
type Model struct {
	Name    string          `json:"name"`
	Version int             `json:"version"` // 1, 2, 3 …
	Created time.Time       `json:"created"`
	TFLite  string          `json:"tflite"` // digest of a stored blob
	Spec    infer.Spec      `json:"spec"`
	Dataset string          `json:"dataset,omitempty"` // digest of the set it was trained on
	Lineage json.RawMessage `json:"lineage,omitempty"` // code, seed, hyper-parameters: an object
	Metrics json.RawMessage `json:"metrics,omitempty"` // an object
	Parents []string        `json:"parents,omitempty"` // "name@version" of models it was made of
}

// Ref is "name@version".
func (m *Model) Ref() string { return m.Name + "@" + strconv.Itoa(m.Version) }

// AddModel stores m; Version 0 takes the next free one. Adding the same content
// again changes nothing; other content under the same version is ErrImmutable.
// The .tflite must have been stored before. The stored model is returned.
func (r *Registry) AddModel(ctx context.Context, m Model) (Model, error) {
	f, err := m.columns()
	if err != nil {
		return Model{}, err
	}
	if _, err := r.Blob(ctx, m.TFLite); err != nil {
		return Model{}, fmt.Errorf("registry: add model %q: its .tflite: %w", m.Name, err)
	}
	var out Model
	err = r.store.change(ctx, AreaModels, func(tx *sql.Tx) error {
		v := m.Version
		if v == 0 {
			if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) + 1 FROM models WHERE name = ?`, m.Name).Scan(&v); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `INSERT INTO models (name, version, created, tflite, spec, dataset, lineage, metrics, parents)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name, version) DO NOTHING`,
			m.Name, v, micros(r.now()), m.TFLite, f.spec, m.Dataset, f.lineage, f.metrics, f.parents); err != nil {
			return err
		}
		var err error
		if out, err = scanModel(tx.QueryRowContext(ctx, selectModel+` WHERE name = ? AND version = ?`, m.Name, v)); err != nil {
			return err
		}
		have, err := out.columns()
		if err != nil {
			return err
		}
		if have != f || out.TFLite != m.TFLite || out.Dataset != m.Dataset {
			return fmt.Errorf("%w: %s; give the new content a new version", ErrImmutable, out.Ref())
		}
		return nil
	})
	if err != nil {
		return Model{}, fmt.Errorf("registry: add model %q: %w", m.Name, err)
	}
	return out, nil
}

// modelColumns are the fields of a model as they are stored and compared.
type modelColumns struct{ spec, lineage, metrics, parents string }

func (m *Model) columns() (f modelColumns, err error) {
	if err := checkName("model name", m.Name); err != nil {
		return f, err
	}
	if strings.Contains(m.Name, "@") {
		return f, invalid("model name %q holds @, which separates name and version", m.Name)
	}
	if m.Version < 0 {
		return f, invalid("model version %d", m.Version)
	}
	if f.spec, err = encode("spec", m.Spec); err != nil {
		return f, err
	}
	if f.lineage, err = canonical("lineage", m.Lineage, "{}"); err != nil {
		return f, err
	}
	if f.metrics, err = canonical("metrics", m.Metrics, "{}"); err != nil {
		return f, err
	}
	f.parents, err = encode("parents", append([]string{}, m.Parents...))
	return f, err
}

const selectModel = `SELECT name, version, created, tflite, spec, dataset, lineage, metrics, parents FROM models`

func scanModel(row row) (m Model, err error) {
	var created int64
	var f modelColumns
	if err := row.Scan(&m.Name, &m.Version, &created, &m.TFLite, &f.spec, &m.Dataset, &f.lineage, &f.metrics, &f.parents); err != nil {
		return m, err
	}
	m.Created, m.Lineage, m.Metrics = instant(created), json.RawMessage(f.lineage), json.RawMessage(f.metrics)
	return m, errors.Join(json.Unmarshal([]byte(f.spec), &m.Spec), json.Unmarshal([]byte(f.parents), &m.Parents))
}

// Model finds one by version number ("3"), by alias ("production"), or the
// newest when which is "" or "latest".
func (r *Registry) Model(ctx context.Context, name, which string) (Model, error) {
	q := r.store.reader
	var m Model
	var err error
	switch v, convErr := strconv.Atoi(which); {
	case which == "" || which == "latest":
		m, err = scanModel(q.QueryRowContext(ctx, selectModel+` WHERE name = ? ORDER BY version DESC LIMIT 1`, name))
	case convErr == nil:
		m, err = scanModel(q.QueryRowContext(ctx, selectModel+` WHERE name = ? AND version = ?`, name, v))
	default:
		m, err = scanModel(q.QueryRowContext(ctx, selectModel+` WHERE name = ? AND version =
			(SELECT version FROM aliases WHERE model = ? AND alias = ?)`, name, name, which))
	}
	if errors.Is(err, sql.ErrNoRows) {
		return Model{}, r.noModel(ctx, name, which)
	}
	if err != nil {
		return Model{}, fmt.Errorf("registry: model %q %q: %w", name, which, err)
	}
	return m, nil
}

// ModelByRef is Model of "name", "name@version" or "name@alias".
func (r *Registry) ModelByRef(ctx context.Context, ref string) (Model, error) {
	name, which, _ := strings.Cut(ref, "@")
	return r.Model(ctx, name, which)
}

// noModel builds the refusal, with what there is instead.
func (r *Registry) noModel(ctx context.Context, name, which string) error {
	e := &NotFoundError{What: "model", Name: strings.TrimSuffix(name+"@"+which, "@")}
	versions, err := list(ctx, r.store.reader, scanString, `SELECT CAST(version AS TEXT) FROM models WHERE name = ? ORDER BY version DESC LIMIT 20`, name)
	if err != nil {
		return errors.Join(e, err)
	}
	if len(versions) == 0 {
		names, err := list(ctx, r.store.reader, scanString, `SELECT DISTINCT name FROM models ORDER BY name LIMIT 20`)
		if err != nil {
			return errors.Join(e, err)
		}
		e.Hint = "no model is registered yet: train or push one"
		if len(names) > 0 {
			e.Hint = "there are: " + strings.Join(names, ", ")
		}
		return e
	}
	e.Hint = "versions of it: " + strings.Join(versions, ", ")
	aliases, err := list(ctx, r.store.reader, scanString, `SELECT alias FROM aliases WHERE model = ? ORDER BY alias LIMIT 20`, name)
	if err != nil {
		return errors.Join(e, err)
	}
	if len(aliases) > 0 {
		e.Hint += "; aliases: " + strings.Join(aliases, ", ")
	}
	return e
}

// Models lists all versions of all models, or of one if name is not empty, by
// name and then newest first.
func (r *Registry) Models(ctx context.Context, name string) ([]Model, error) {
	ms, err := list(ctx, r.store.reader, scanModel, selectModel+` WHERE (? = '' OR name = ?) ORDER BY name, version DESC`, name, name)
	if err != nil {
		return nil, fmt.Errorf("registry: models: %w", err)
	}
	return ms, nil
}
