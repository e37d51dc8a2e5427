package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// Ext is how the name of a bundle ends.
const Ext = ".drover"

// Limits.
const (
	MaxSize    = 4 << 30
	MaxEntries = 256
	MaxRoots   = 64
	maxHead    = 16 << 10
)

const (
	headName    = "drover-bundle"
	currentName = "current.json"
	block       = 512 // of a tar archive
	trailer     = 2 * block
)

// What reading a bundle may answer.
var (
	// ErrIncomplete says that the end is missing: the file may still be on its
	// way.
	ErrIncomplete = errors.New("bundle: not whole")
	// ErrFormat says that this is no bundle, or one with something in it that
	// does not belong there.
	ErrFormat = errors.New("bundle: malformed")
	// ErrDigest says that a blob is not what its name says.
	ErrDigest = errors.New("bundle: damaged")
)

// Head is what a bundle says of itself, for people and for an early no. It is
// not signed: whatever depends on it must come to the same end without it.
type Head struct {
	V        int      `json:"v"`
	Fleet    string   `json:"fleet"`
	Release  string   `json:"release"`         // path
	Manifest string   `json:"sha256"`          // of the manifest, the first blob
	Plans    []string `json:"plans,omitempty"` // ids of the plans that name the release
	Created  int64    `json:"created"`         // Unix seconds
	Expires  int64    `json:"expires"`         // Unix seconds, when the first of the metadata does
	Size     int64    `json:"size"`            // of the file
	Entries  int      `json:"entries"`         // the head included
}

func decodeHead(b []byte) (Head, error) {
	var h Head
	if err := json.Unmarshal(b, &h); err != nil {
		return Head{}, fmt.Errorf("%w: head: %w", ErrFormat, err)
	}
	_, _, pathErr := wire.ParseReleasePath(h.Release)
	switch {
	case h.V != wire.Version:
		return Head{}, fmt.Errorf("%w: format version %d, this program reads %d", ErrFormat, h.V, wire.Version)
	case !wire.ValidName(h.Fleet) || pathErr != nil || !wire.ValidDigest(h.Manifest):
		return Head{}, fmt.Errorf("%w: head names fleet %.80q, release %.80q, manifest %.80q", ErrFormat, h.Fleet, h.Release, h.Manifest)
	case h.Size < trailer || h.Size > MaxSize || h.Size%block != 0:
		return Head{}, fmt.Errorf("%w: %d bytes, allowed %d, in blocks of %d", ErrFormat, h.Size, int64(MaxSize), block)
	case h.Entries < 1 || h.Entries > MaxEntries:
		return Head{}, fmt.Errorf("%w: %d entries, allowed %d", ErrFormat, h.Entries, MaxEntries)
	}
	return h, nil
}

// Metadata is one version of one role, raw.
type Metadata struct {
	Role    string
	Version int64
	Raw     []byte
}

func metadataName(role string, version int64) string {
	return role + "." + strconv.FormatInt(version, 10) + ".json"
}

// parseMetadataName is the reverse of metadataName; ok is false for anything
// else.
func parseMetadataName(name string) (role string, version int64, ok bool) {
	role, rest, _ := strings.Cut(name, ".")
	number, found := strings.CutSuffix(rest, ".json")
	version, err := strconv.ParseInt(number, 10, 64)
	switch role {
	case wire.RoleRoot, wire.RoleTargets, wire.RoleModels, wire.RoleRollouts:
		return role, version, found && err == nil && version >= 1 && metadataName(role, version) == name
	}
	return "", 0, false
}

// order is the place of an entry in the file; entries never step back.
func order(role string) int {
	switch role {
	case wire.RoleRoot:
		return 0
	case wire.RoleTargets:
		return 1
	case wire.RoleModels:
		return 2
	case wire.RoleRollouts:
		return 3
	}
	panic("internal error: bundle: no place for role " + role)
}

// padded is the room that n bytes take.
func padded(n int64) int64 { return (n + block - 1) / block * block }

// String is the head in one line.
func (h Head) String() string {
	return fmt.Sprintf("%s of fleet %s, made %s, good until %s", h.Release, h.Fleet,
		time.Unix(h.Created, 0).UTC().Format(time.RFC3339), time.Unix(h.Expires, 0).UTC().Format(time.RFC3339))
}
