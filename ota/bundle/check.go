package bundle

import (
	"fmt"

	"github.com/droverhq/drover/agent/wire"
)

// checker holds the names and sizes of entries against the format, one after
// the other. Both reading and writing go through it.
type checker struct {
	head    Head
	entries int // without the head
	place   int // order of the last metadata; 4 after current
	version int64
	blobs   map[string]bool
}

// next takes the entry that follows.
func (k *checker) next(name string, size int64) error {
	if k.entries++; k.entries >= k.head.Entries {
		return fmt.Errorf("%w: more than the %d entries it says it has", ErrFormat, k.head.Entries)
	}
	if size < 0 {
		return fmt.Errorf("%w: %.80q has %d bytes", ErrFormat, name, size)
	}
	role, version, ok := parseMetadataName(name)
	switch {
	case ok:
		return k.metadata(role, version, size)
	case name == currentName:
		if k.place != order(wire.RoleRollouts) {
			return fmt.Errorf("%w: %s is not where it belongs", ErrFormat, name)
		}
		k.place = 4
		return k.limit(name, size, wire.MaxCurrent)
	case wire.ValidDigest(name):
		return k.blob(name, size)
	}
	return fmt.Errorf("%w: %.80q does not belong into a bundle", ErrFormat, name)
}

func (k *checker) metadata(role string, version, size int64) error {
	name, at := metadataName(role, version), order(role)
	switch {
	case k.place == 4 || at != k.place && at != k.place+1 || at > 0 && at == k.place:
		return fmt.Errorf("%w: %s is not where it belongs", ErrFormat, name)
	case role == wire.RoleRoot && version != k.version+1, at == 1 && k.version == 0:
		return fmt.Errorf("%w: %s comes after root version %d; a link of the chain is missing", ErrFormat, name, k.version)
	case role == wire.RoleRoot && version > MaxRoots:
		return fmt.Errorf("%w: more than %d roots", ErrFormat, MaxRoots)
	case role == wire.RoleRoot:
		k.version = version
	}
	k.place = at
	return k.limit(name, size, int64(wire.MaxMetadata(role)))
}

func (k *checker) blob(name string, size int64) error {
	limit := int64(wire.MaxBlob)
	if len(k.blobs) == 0 {
		if name != k.head.Manifest {
			return fmt.Errorf("%w: the first blob is %s, and not the manifest", ErrFormat, name)
		}
		limit = wire.MaxManifest
	}
	switch {
	case k.place != 4:
		return fmt.Errorf("%w: blob %s stands before the end of the metadata", ErrFormat, name)
	case k.blobs[name]:
		return fmt.Errorf("%w: blob %s stands twice", ErrFormat, name)
	case k.blobs == nil:
		k.blobs = map[string]bool{}
	}
	k.blobs[name] = true
	return k.limit(name, size, limit)
}

func (k *checker) limit(name string, size, limit int64) error {
	if size > limit {
		return fmt.Errorf("%w: %s has %d bytes, allowed %d", ErrFormat, name, size, limit)
	}
	return nil
}

// end says whether nothing is missing.
func (k *checker) end() error {
	if k.entries != k.head.Entries-1 || len(k.blobs) == 0 {
		return fmt.Errorf("%w: %d entries, it says it has %d; or the manifest is missing", ErrFormat, k.entries+1, k.head.Entries)
	}
	return nil
}
