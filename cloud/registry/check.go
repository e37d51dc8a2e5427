package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of what is stored in rows.
const (
	MaxNameBytes = 256
	MaxJSONBytes = 4 << 20
)

// checkName refuses names that cannot be shown or typed. Stricter rules (what
// may stand in a topic) belong to the contract package, not here.
func checkName(what, s string) error {
	switch {
	case s == "":
		return invalid("%s is empty", what)
	case len(s) > MaxNameBytes:
		return invalid("%s has %d bytes, allowed %d", what, len(s), MaxNameBytes)
	case !utf8.ValidString(s):
		return invalid("%s %q is no UTF-8", what, s)
	case strings.ContainsFunc(s, unicode.IsControl):
		return invalid("%s %q holds control characters", what, s)
	}
	return nil
}

func checkDigest(s string) error {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return invalid("digest %q; wanted SHA-256 in lower-case hex", s)
	}
	return nil
}

// canonical brings JSON into one form (sorted keys, no spaces), so that equal
// content has equal bytes. Nothing stands for empty.
func canonical(what string, raw json.RawMessage, empty string) (string, error) {
	if len(raw) == 0 {
		return empty, nil
	}
	if len(raw) > MaxJSONBytes {
		return "", fmt.Errorf("registry: %s: %w: %d bytes, allowed %d", what, ErrTooLarge, len(raw), MaxJSONBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return "", invalid("%s is no JSON: %v", what, err)
	}
	if dec.More() {
		return "", invalid("%s: something follows the JSON value", what)
	}
	return encode(what, v)
}

func encode(what string, v any) (string, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return "", invalid("%s: %v", what, err)
	}
	return string(b), nil
}
