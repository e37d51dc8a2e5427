package tufcore

import (
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Policy is what a caller demands beyond the specification. Its functions may
// be nil; they answer with Refuse.
type Policy struct {
	// MaxBytes is the size limit of a role's metadata; 0: there is no such
	// role. It is not nil.
	MaxBytes func(role string) int
	// Strict demands that metadata names other metadata by version, length and
	// SHA-256, and that all keys are Ed25519.
	Strict bool
	// Roles are those that a snapshot must list and that a Floor is kept of;
	// nil: whatever the snapshot lists.
	Roles []string
	// Root judges a root whose signatures hold.
	Root func(*metadata.RootType) error
	// Timestamp judges a timestamp whose signatures hold; rootEnd is the
	// expiry of the root.
	Timestamp func(h Head, rootEnd time.Time) error
	// Targets judges a targets role whose signatures hold.
	Targets func(role string, t *metadata.TargetsType) error
}

// Standard is the specification alone, with the limits that other clients use.
func Standard() Policy {
	return Policy{MaxBytes: func(role string) int {
		switch role {
		case metadata.ROOT:
			return 512_000
		case metadata.TIMESTAMP:
			return 16_384
		case metadata.SNAPSHOT:
			return 2_000_000
		}
		return 5_000_000
	}}
}
