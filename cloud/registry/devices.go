package registry

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Device is one enrolled device: what the fleet decided about it, and what it
// last reported.
type Device struct {
	ID         string            `json:"id"`
	Shard      string            `json:"shard"`
	Labels     map[string]string `json:"labels,omitempty"`
	Cert       Cert              `json:"cert"`
	EnrolledAt time.Time         `json:"enrolled_at"`
	RevokedAt  time.Time         `json:"revoked_at,omitzero"`

	LastSeen time.Time       `json:"last_seen,omitzero"` // by the clock of the hub
	Online   bool            `json:"online"`
	State    json.RawMessage `json:"state,omitempty"` // the last one reported
	Boot     string          `json:"boot,omitempty"`  // boot id and sequence of State
	Seq      int64           `json:"seq,omitempty"`
}

// Cert names a device's current certificate.
type Cert struct {
	Serial      string    `json:"serial"`
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the DER, lower-case hex
	Expiry      time.Time `json:"expiry"`
}

// Revoked says whether the device was thrown out of the fleet.
func (d *Device) Revoked() bool { return !d.RevokedAt.IsZero() }

// UpsertDevice enrols a device or changes what the fleet decides about it:
// shard, labels, certificate. Enrolment date, revocation and reports of a known
// device stay; zero EnrolledAt of a new one means now.
func (r *Registry) UpsertDevice(ctx context.Context, d Device) error {
	if err := errors.Join(checkName("device id", d.ID), checkName("shard", d.Shard)); err != nil {
		return err
	}
	labels, err := encodeLabels(d.Labels)
	if err != nil {
		return err
	}
	if d.EnrolledAt.IsZero() {
		d.EnrolledAt = r.now()
	}
	err = r.store.change(ctx, AreaDevices, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO devices (id, shard, labels, cert_serial, cert_fingerprint, cert_expiry,
				enrolled_at, revoked_at, last_seen, online, state, boot, seq)
			VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, '', '', 0)
			ON CONFLICT (id) DO UPDATE SET revoked_at = CASE WHEN devices.cert_serial = excluded.cert_serial THEN devices.revoked_at ELSE 0 END,
				shard = excluded.shard, labels = excluded.labels, cert_serial = excluded.cert_serial,
				cert_fingerprint = excluded.cert_fingerprint, cert_expiry = excluded.cert_expiry`,
			d.ID, d.Shard, labels, d.Cert.Serial, d.Cert.Fingerprint, micros(d.Cert.Expiry), micros(d.EnrolledAt))
		return err
	})
	if err != nil {
		return fmt.Errorf("registry: device %q: %w", d.ID, err)
	}
	return nil
}

// RevokeDevice throws a device out; doing it again keeps the first date.
func (r *Registry) RevokeDevice(ctx context.Context, id string) error {
	return r.updateDevice(ctx, AreaDevices, id, `UPDATE devices SET revoked_at = CASE WHEN revoked_at = 0 THEN ? ELSE revoked_at END WHERE id = ?`, micros(r.now()), id)
}

// SetLabels replaces the labels of a device.
func (r *Registry) SetLabels(ctx context.Context, id string, labels map[string]string) error {
	text, err := encodeLabels(labels)
	if err != nil {
		return err
	}
	return r.updateDevice(ctx, AreaDevices, id, `UPDATE devices SET labels = ? WHERE id = ?`, text, id)
}

// SetOnline records that a session began or ended.
func (r *Registry) SetOnline(ctx context.Context, id string, online bool) error {
	n := 0
	if online {
		n = 1
	}
	return r.updateDevice(ctx, AreaReports, id, `UPDATE devices SET online = ?, last_seen = ? WHERE id = ?`, n, micros(r.now()), id)
}

// RecordState keeps the state a device reported. A report that is not newer
// than the one kept of the same boot is dropped: fresh is false.
func (r *Registry) RecordState(ctx context.Context, id, boot string, seq int64, state json.RawMessage) (fresh bool, err error) {
	text, err := canonical("device state", state, "")
	if err != nil {
		return false, err
	}
	err = r.updateDevice(ctx, AreaReports, id, `UPDATE devices SET state = ?, boot = ?, seq = ?, last_seen = ?
		WHERE id = ? AND (boot <> ? OR seq < ?)`, text, boot, seq, micros(r.now()), id, boot, seq)
	if errors.Is(err, ErrNotFound) {
		_, err = r.Device(ctx, id)
		return false, err
	}
	return err == nil, err
}

func (r *Registry) updateDevice(ctx context.Context, area Area, id, query string, args ...any) error {
	err := r.store.change(ctx, area, func(tx *sql.Tx) error {
		return mustTouch(tx.ExecContext(ctx, query, args...))
	})
	if errors.Is(err, sql.ErrNoRows) {
		return noDevice(id)
	}
	if err != nil {
		return fmt.Errorf("registry: device %q: %w", id, err)
	}
	return nil
}

func noDevice(id string) error {
	return &NotFoundError{What: "device", Name: id, Hint: "drover devices list shows those enrolled"}
}

const selectDevice = `SELECT id, shard, labels, cert_serial, cert_fingerprint, cert_expiry,
	enrolled_at, revoked_at, last_seen, online, state, boot, seq FROM devices`

func scanDevice(row row) (d Device, err error) {
	var labels, state string
	var expiry, enrolled, revoked, seen int64
	var online int
	if err := row.Scan(&d.ID, &d.Shard, &labels, &d.Cert.Serial, &d.Cert.Fingerprint, &expiry,
		&enrolled, &revoked, &seen, &online, &state, &d.Boot, &d.Seq); err != nil {
		return d, err
	}
	d.Cert.Expiry, d.EnrolledAt, d.RevokedAt, d.LastSeen = instant(expiry), instant(enrolled), instant(revoked), instant(seen)
	d.Online = online != 0
	if state != "" {
		d.State = json.RawMessage(state)
	}
	return d, json.Unmarshal([]byte(labels), &d.Labels)
}

// Device finds one by id.
func (r *Registry) Device(ctx context.Context, id string) (Device, error) {
	d, err := scanDevice(r.store.reader.QueryRowContext(ctx, selectDevice+` WHERE id = ?`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return Device{}, noDevice(id)
	}
	if err != nil {
		return Device{}, fmt.Errorf("registry: device %q: %w", id, err)
	}
	return d, nil
}

// DeviceFilter narrows a list; zero fields do not.
type DeviceFilter struct {
	Labels  map[string]string // all must be there with these values
	Shard   string
	Online  *bool
	Revoked *bool
	After   string // ids after this one, for paging
	Limit   int
}

func (f *DeviceFilter) match(d *Device) bool {
	if f.Online != nil && d.Online != *f.Online || f.Revoked != nil && d.Revoked() != *f.Revoked {
		return false
	}
	for k, v := range f.Labels {
		if have, ok := d.Labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// Devices lists devices by id.
func (r *Registry) Devices(ctx context.Context, f DeviceFilter) ([]Device, error) {
	rows, err := r.store.reader.QueryContext(ctx, selectDevice+` WHERE (? = '' OR shard = ?) AND id > ? ORDER BY id`, f.Shard, f.Shard, f.After)
	if err != nil {
		return nil, fmt.Errorf("registry: devices: %w", err)
	}
	defer func() { _ = rows.Close() }() // an error of Close is in rows.Err too
	var out []Device
	for rows.Next() {
		d, err := scanDevice(rows)
		if err != nil {
			return nil, fmt.Errorf("registry: devices: %w", err)
		}
		if !f.match(&d) {
			continue
		}
		if out = append(out, d); len(out) == f.Limit {
			break
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("registry: devices: %w", err)
	}
	return out, nil
}

func encodeLabels(l map[string]string) (string, error) {
	if l == nil {
		l = map[string]string{}
	}
	for k := range l {
		if err := checkName("label", k); err != nil {
			return "", err
		}
	}
	return encode("labels", l)
}
