package publish

import (
	"context"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// Metadata is one signed version of a role.
type Metadata struct {
	Role    string
	Version int64
	Raw     []byte
}

// Repo keeps every version of every role. Implementations are safe for
// concurrent use.
type Repo interface {
	// Latest is the newest version of a role; version 0 when there is none.
	Latest(ctx context.Context, role string) (raw []byte, version int64, err error)
	// Get is one version of a role, an error if it is not there.
	Get(ctx context.Context, role string, version int64) (raw []byte, err error)
	// Append adds all or nothing, durably. Versions of a role only grow; one
	// that is there already is never replaced.
	Append(ctx context.Context, ms ...Metadata) error
}

// latest reads and parses the newest version of a role; ErrNoFleet if none.
func latest[T metadata.Roles](ctx context.Context, repo Repo, role string, into *metadata.Metadata[T]) ([]byte, error) {
	raw, version, err := repo.Latest(ctx, role)
	if err != nil {
		return nil, fail(err, "read %s", role)
	}
	if version == 0 {
		return nil, fail(ErrNoFleet, "there is no %s; make a fleet with drover init", role)
	}
	if _, err := into.FromBytes(raw); err != nil {
		return nil, fail(ErrInvalid, "%s version %d in the repository: %v", role, version, err)
	}
	return raw, nil
}

// The roles, in the order in which they are made.
func allRoles() []string {
	return []string{wire.RoleRoot, wire.RoleTargets, wire.RoleModels, wire.RoleRollouts, metadata.SNAPSHOT, metadata.TIMESTAMP}
}
