package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
)

// Repair is the payload of a chunk on a device's own topic: the blob's digest,
// then the chunk. An invalid digest gives nil.
func Repair(digest string, chunk []byte) []byte {
	sum, err := hex.DecodeString(digest)
	if err != nil || len(sum) != sha256.Size {
		return nil
	}
	return append(sum, chunk...)
}

// ParseRepair takes a message on a device's own blob topic apart. Rest is the
// topic's last level (Topic.Rest). data shares the payload's memory.
func ParseRepair(rest string, payload []byte) (digest string, chunk int, data []byte, err error) {
	n, err := strconv.Atoi(rest)
	if err != nil || n < 0 || n > MaxBlob/ChunkSize || strconv.Itoa(n) != rest {
		return "", 0, nil, fmt.Errorf("%w: chunk number %.20q", ErrMalformed, rest)
	}
	if len(payload) < sha256.Size || len(payload) > sha256.Size+ChunkSize {
		return "", 0, nil, fmt.Errorf("%w: repair of %d bytes", ErrMalformed, len(payload))
	}
	return hex.EncodeToString(payload[:sha256.Size]), n, payload[sha256.Size:], nil
}
