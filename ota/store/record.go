package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
)

// A record file is one line "drover-record REVISION LENGTH CHECKSUM", then the
// payload. The checksum is SHA-256 over "REVISION LENGTH\n" and the payload,
// so that no part of the file can change unnoticed.
const recordMagic = "drover-record"

var errRecord = errors.New("no valid record")

func encodeRecord(rev uint64, payload []byte) []byte {
	sum := recordSum(rev, payload)
	head := fmt.Sprintf("%s %d %d %s\n", recordMagic, rev, len(payload), hex.EncodeToString(sum[:]))
	return append([]byte(head), payload...)
}

func recordSum(rev uint64, payload []byte) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d %d\n", rev, len(payload))
	h.Write(payload)
	return [sha256.Size]byte(h.Sum(nil))
}

// decodeRecord reads a record file; the payload aliases b.
func decodeRecord(b []byte) (rev uint64, payload []byte, err error) {
	line, payload, ok := bytes.Cut(b, []byte("\n"))
	words := bytes.Split(line, []byte(" "))
	if !ok || len(line) > 160 || len(words) != 4 || string(words[0]) != recordMagic {
		return 0, nil, fmt.Errorf("%w: no head line", errRecord)
	}
	rev, err = strconv.ParseUint(string(words[1]), 10, 64)
	if err != nil || rev == 0 {
		return 0, nil, fmt.Errorf("%w: revision %q", errRecord, words[1])
	}
	if string(words[2]) != strconv.Itoa(len(payload)) {
		return 0, nil, fmt.Errorf("%w: %d bytes, the head says %q", errRecord, len(payload), words[2])
	}
	sum := recordSum(rev, payload)
	if string(words[3]) != hex.EncodeToString(sum[:]) {
		return 0, nil, fmt.Errorf("%w: checksum differs", errRecord)
	}
	return rev, payload, nil
}
