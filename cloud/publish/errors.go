package publish

import (
	"errors"
	"fmt"
)

// What signing may be refused for; asserted with errors.Is.
var (
	ErrExists     = errors.New("exists already")
	ErrNoFleet    = errors.New("no fleet here yet")
	ErrUnsigned   = errors.New("not signed by models")
	ErrClock      = errors.New("clock cannot be right")
	ErrTooLarge   = errors.New("over its size limit")
	ErrKeys       = errors.New("wrong keys")
	ErrPassphrase = errors.New("passphrase")
	ErrInvalid    = errors.New("invalid")
	ErrStale      = errors.New("out of date")
)

func fail(kind error, format string, args ...any) error {
	return fmt.Errorf("publish: %s: %w", fmt.Sprintf(format, args...), kind)
}
