package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Prefix stands before every topic; it names the protocol and its version.
const Prefix = "drover/v1/"

// ErrTopic is wrapped by ParseTopic's errors.
var ErrTopic = errors.New("wire: no drover topic")

// The roles whose metadata travels on topics of its own.
const (
	RoleRoot     = "root"
	RoleTargets  = "targets"
	RoleModels   = "models"
	RoleRollouts = "rollouts"
)

// Topics builds the topics of one fleet.
type Topics struct{ Fleet string }

// ValidName says whether s may be a fleet or device name: 1 to 63 of a–z, 0–9
// and hyphen, not beginning with a hyphen. Such a name is also a host name
// label and never a topic wildcard.
func ValidName(s string) bool {
	if len(s) < 1 || len(s) > 63 || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Shard is the first hexadecimal digit of SHA-256(device).
func Shard(device string) string {
	sum := sha256.Sum256([]byte(device))
	return hex.EncodeToString(sum[:1])[:1]
}

func (t Topics) base() string { return Prefix + t.Fleet + "/" }

// TrustCurrent is where Current is retained.
func (t Topics) TrustCurrent() string { return t.base() + "trust/current" }

// TrustRole is where one version of a role's metadata is retained.
func (t Topics) TrustRole(role string, version int64) string {
	return t.base() + "trust/" + role + "/" + strconv.FormatInt(version, 10)
}

// TrustAll is the filter for all trust topics.
func (t Topics) TrustAll() string { return t.base() + "trust/#" }

// BlobChunk carries chunk number i of a blob.
func (t Topics) BlobChunk(digest string, i int) string {
	return t.base() + "blob/" + digest + "/" + strconv.Itoa(i)
}

// BlobAll is the filter for all chunks of one blob.
func (t Topics) BlobAll(digest string) string { return t.base() + "blob/" + digest + "/+" }

// Repair carries chunk number i of some blob to one device; the payload is what
// the function Repair makes.
func (t Topics) Repair(device string, i int) string {
	return t.Device(device, LeafBlob) + "/" + strconv.Itoa(i)
}

// Repairs is the filter for everything Repair sends to a device.
func (t Topics) Repairs(device string) string { return t.Device(device, LeafBlob) + "/+" }

// Leaf names a topic below a device's own.
type Leaf string

// The leaves. A device writes the first five, and reads the last two and
// LeafBlob + "/+".
const (
	LeafOnline    Leaf = "online"
	LeafState     Leaf = "state"
	LeafEvent     Leaf = "event"
	LeafTelemetry Leaf = "telemetry"
	LeafGet       Leaf = "get"
	LeafSample    Leaf = "sample"
	LeafDesired   Leaf = "desired"
	LeafCommand   Leaf = "command"
	LeafBlob      Leaf = "blob"

	LeafRenew       Leaf = "renew"       // the device writes
	LeafCertificate Leaf = "certificate" // the device reads
)

// Device is a topic of one device.
func (t Topics) Device(device string, leaf Leaf) string {
	return t.base() + "d/" + Shard(device) + "/" + device + "/" + string(leaf)
}

// Devices is the filter for one leaf of all devices of all shards.
func (t Topics) Devices(leaf Leaf) string { return t.base() + "d/+/+/" + string(leaf) }

// Topic is a parsed topic: exactly one of Trust, Blob and Device is set.
type Topic struct {
	Fleet   string
	Trust   string // "current" or a role
	Version int64  // of the role's metadata
	Blob    string // digest
	Chunk   int
	Device  string
	Leaf    Leaf
	Rest    string // below sample and blob
}

// ParseTopic reads a topic (not a filter) and checks that the shard is the
// device's own.
func ParseTopic(topic string) (Topic, error) {
	rest, ok := strings.CutPrefix(topic, Prefix)
	parts := strings.Split(rest, "/")
	if !ok || len(topic) > 256 || len(parts) < 3 || !ValidName(parts[0]) {
		return Topic{}, fmt.Errorf("%w: %q", ErrTopic, topic)
	}
	t := Topic{Fleet: parts[0]}
	bad := fmt.Errorf("%w: %q", ErrTopic, topic)
	switch parts[1] {
	case "trust":
		if len(parts) == 3 && parts[2] == "current" {
			t.Trust = "current"
			return t, nil
		}
		if len(parts) != 4 {
			return Topic{}, bad
		}
		switch parts[2] {
		case RoleRoot, RoleTargets, RoleModels, RoleRollouts:
		default:
			return Topic{}, bad
		}
		v, err := strconv.ParseInt(parts[3], 10, 64)
		if err != nil || v < 1 || strconv.FormatInt(v, 10) != parts[3] {
			return Topic{}, bad
		}
		t.Trust, t.Version = parts[2], v
		return t, nil
	case "blob":
		if len(parts) != 4 || !ValidDigest(parts[2]) {
			return Topic{}, bad
		}
		n, err := strconv.Atoi(parts[3])
		if err != nil || n < 0 || n > MaxBlob/ChunkSize || strconv.Itoa(n) != parts[3] {
			return Topic{}, bad
		}
		t.Blob, t.Chunk = parts[2], n
		return t, nil
	case "d":
		if len(parts) < 5 || !ValidName(parts[3]) || parts[2] != Shard(parts[3]) {
			return Topic{}, bad
		}
		t.Device, t.Leaf = parts[3], Leaf(parts[4])
		switch t.Leaf {
		case LeafOnline, LeafState, LeafEvent, LeafTelemetry, LeafGet, LeafDesired, LeafCommand, LeafRenew, LeafCertificate:
			if len(parts) != 5 {
				return Topic{}, bad
			}
		case LeafSample, LeafBlob:
			if len(parts) != 6 || parts[5] == "" {
				return Topic{}, bad
			}
			t.Rest = parts[5]
		default:
			return Topic{}, bad
		}
		return t, nil
	}
	return Topic{}, bad
}

// ValidDigest says whether s is a SHA-256 in lower-case hexadecimal.
func ValidDigest(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
