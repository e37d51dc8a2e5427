package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// What decoding may answer; asserted with errors.Is.
var (
	ErrTooLarge  = errors.New("wire: message over its size limit")
	ErrVersion   = errors.New("wire: message version not spoken here")
	ErrMalformed = errors.New("wire: malformed message")
)

// Header stands in every message of a device. Boot changes with every start of
// the daemon, Seq grows within a boot: together they make reception idempotent.
type Header struct {
	V    int    `json:"v"`
	Boot string `json:"boot"`
	Seq  uint64 `json:"seq"`
	At   int64  `json:"at"` // Unix milliseconds by the device's clock, which may be wrong
}

// Encode marshals a message. It panics on values that JSON cannot hold, which
// the types of this package exclude.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("internal error: wire: " + err.Error())
	}
	return b
}

// Decode reads one message of at most max bytes into v; unknown fields are
// ignored.
func Decode(b []byte, max int, v any) error { return decode(b, max, v, false) }

// DecodeStrict is Decode that refuses unknown fields and names the first.
func DecodeStrict(b []byte, max int, v any) error { return decode(b, max, v, true) }

func decode(b []byte, max int, v any, strict bool) error {
	if len(b) > max {
		return fmt.Errorf("%w: %d bytes, allowed %d", ErrTooLarge, len(b), max)
	}
	var head struct {
		V *int `json:"v"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if head.V == nil {
		return fmt.Errorf("%w: no field v", ErrVersion)
	}
	if *head.V != Version {
		return fmt.Errorf("%w: version %d, this program speaks %d", ErrVersion, *head.V, Version)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %v", ErrMalformed, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: bytes after the message", ErrMalformed)
	}
	return nil
}
