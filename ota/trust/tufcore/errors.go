package tufcore

import (
	"errors"
	"fmt"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// The kinds of refusal, asserted with errors.Is.
var (
	ErrSignature   = errors.New("not signed by enough keys of the role")
	ErrRollback    = errors.New("older than what was accepted before")
	ErrExpired     = errors.New("past its expiry")
	ErrDigest      = errors.New("bytes differ from the signed digest")
	ErrMalformed   = errors.New("not readable as what it should be")
	ErrVersionSkip = errors.New("version out of sequence")
)

// ErrSame says that a timestamp has the version that is trusted already; its
// bytes do not matter then.
var ErrSame = errors.New("trust: nothing new")

// ErrNotFound says that no role answers for a target.
var ErrNotFound = errors.New("no role signed such a target")

// Refuse makes a refusal of one kind. The text says what was expected, what
// was found and, where there is one, an honest cause.
func Refuse(kind error, format string, args ...any) error {
	return fmt.Errorf("trust: %s: %w", fmt.Sprintf(format, args...), kind)
}

// Expired is the refusal of metadata that ended before ref.
func Expired(role string, version int64, end, ref time.Time) error {
	return Refuse(ErrExpired, "%s version %d ended %s, and it is at least %s; the hub has not published since, or someone holds its messages back",
		role, version, Day(end), Day(ref))
}

// Day is how refusals write a time.
func Day(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// kindOf names go-tuf's errors by ours.
func kindOf(err error) error {
	switch {
	case errors.Is(err, &metadata.ErrUnsignedMetadata{}):
		return ErrSignature
	case errors.Is(err, &metadata.ErrExpiredMetadata{}):
		return ErrExpired
	case errors.Is(err, &metadata.ErrLengthOrHashMismatch{}):
		return ErrDigest
	case errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return ErrVersionSkip
	}
	return ErrMalformed
}
