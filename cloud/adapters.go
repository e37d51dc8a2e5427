package cloud

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
)

// repo is the registry as cloud/publish sees it. With a lease it appends only
// while the lease is held.
type repo struct {
	r     *registry.Registry
	guard *registry.Lease
}

// Latest implements publish.Repo.
func (p repo) Latest(ctx context.Context, role string) ([]byte, int64, error) {
	m, err := p.r.LatestMetadata(ctx, role)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, 0, nil
	}
	return m.Bytes, m.Version, err
}

// Get implements publish.Repo.
func (p repo) Get(ctx context.Context, role string, version int64) ([]byte, error) {
	m, err := p.r.Metadata(ctx, role, version)
	return m.Bytes, err
}

// Append implements publish.Repo.
func (p repo) Append(ctx context.Context, ms ...publish.Metadata) error {
	out := make([]registry.Metadata, len(ms))
	for i, m := range ms {
		out[i] = registry.Metadata{Role: m.Role, Version: m.Version, Bytes: m.Raw}
	}
	return p.r.PublishMetadata(ctx, p.guard, out...)
}

// tokens is the registry as cloud/identity sees it.
type tokens struct{ r *registry.Registry }

// AddToken implements identity.TokenStore.
func (t tokens) AddToken(ctx context.Context, hash string, expires time.Time) error {
	return t.r.CreateToken(ctx, registry.Token{Hash: hash, Expires: expires, UsesLeft: 1})
}

// ConsumeToken implements identity.TokenStore.
func (t tokens) ConsumeToken(ctx context.Context, hash, device string) error {
	_, err := t.r.ConsumeToken(ctx, hash, device)
	for theirs, ours := range map[error]error{
		registry.ErrNotFound: identity.ErrTokenUnknown, registry.ErrTokenSpent: identity.ErrTokenSpent, registry.ErrTokenLapsed: identity.ErrTokenLapsed,
	} {
		if errors.Is(err, theirs) {
			return fmt.Errorf("%w: %v", ours, err)
		}
	}
	return err
}

// members is the registry as cloud/identity sees it.
type members struct{ r *registry.Registry }

// Enrolled implements identity.DeviceStore.
func (m members) Enrolled(ctx context.Context, device string) (bool, error) {
	_, err := m.r.Device(ctx, device)
	if errors.Is(err, registry.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// AddDevice implements identity.DeviceStore.
func (m members) AddDevice(ctx context.Context, c identity.Issued) (former string, err error) {
	d, err := m.r.Device(ctx, c.Device)
	if err != nil && !errors.Is(err, registry.ErrNotFound) {
		return "", err
	}
	former = d.Cert.Serial
	d.ID, d.Shard = c.Device, wire.Shard(c.Device)
	d.Cert = registry.Cert{Serial: c.Serial, Fingerprint: c.Fingerprint, Expiry: c.NotAfter}
	return former, m.r.UpsertDevice(ctx, d)
}
