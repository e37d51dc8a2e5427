package tufcore

import (
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// Floor is the highest version accepted of each role.
type Floor map[string]int64

// Clone is a copy; never nil.
func (f Floor) Clone() Floor {
	c := Floor{}
	maps.Copy(c, f)
	return c
}

// Raise lifts the versions to those accepted.
func (f Floor) Raise(versions map[string]int64) {
	for role, v := range versions {
		f[role] = max(f[role], v)
	}
}

// Forget gives up what keys that a root took away may have driven up: a
// timestamp key its own versions, a snapshot key those of everything the
// snapshot lists.
func (f Floor) Forget(lost Lost) {
	if lost.Timestamp {
		delete(f, metadata.TIMESTAMP)
	}
	if lost.Snapshot {
		maps.DeleteFunc(f, func(role string, _ int64) bool { return role != metadata.ROOT && role != metadata.TIMESTAMP })
	}
}

// Lost says which roles lost a key from one root to the next.
type Lost struct{ Timestamp, Snapshot bool }

func lost(old, next *metadata.RootType) Lost {
	gone := func(role string) bool {
		was, is := old.Roles[role], next.Roles[role]
		if was == nil || is == nil {
			return is != was
		}
		return slices.ContainsFunc(was.KeyIDs, func(id string) bool { return !slices.Contains(is.KeyIDs, id) })
	}
	return Lost{Timestamp: gone(metadata.TIMESTAMP), Snapshot: gone(metadata.SNAPSHOT)}
}
