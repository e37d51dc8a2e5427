package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrControl is wrapped by errors of Decode.
var ErrControl = errors.New("protocol: malformed control message")

// Encode is the JSON payload of a control message.
func Encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("protocol: encode %T: %w", v, err)
	}
	return b, nil
}

// Decode reads a control message's payload into v: one JSON value, no unknown
// key, nothing behind it. The payload's length is bounded by camera/ipc.
func Decode(payload []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %T: %v", ErrControl, v, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: %T: bytes behind the message", ErrControl, v)
	}
	return nil
}
