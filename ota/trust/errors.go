package trust

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
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

// Faults that are no refusal.
var (
	ErrNoRoot = errors.New("no root to trust")
	ErrStore  = errors.New("trust store failed")
)

// MissingError says that Refresh waits for metadata that was not offered yet.
// A device subscribes to trust/{role}/{version}, again if it did before: an
// offer with the wanted digest always finds room.
type MissingError struct {
	Role    string
	Version int64
}

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("trust: waits for %s version %d, which was not offered yet", e.Role, e.Version)
}

// Reason is the reason under which a hub counts err; ReasonNone for nil and
// for a MissingError, which is no failure.
func Reason(err error) wire.Reason {
	for _, k := range []struct {
		kind   error
		reason wire.Reason
	}{
		{ErrSignature, wire.ReasonSignature},
		{ErrRollback, wire.ReasonRollback},
		{ErrDigest, wire.ReasonDigest},
		{ErrExpired, wire.ReasonExpired},
		{ErrVersionSkip, wire.ReasonMalformed},
		{ErrMalformed, wire.ReasonMalformed},
		{syscall.ENOSPC, wire.ReasonSpace},
	} {
		if errors.Is(err, k.kind) {
			return k.reason
		}
	}
	if _, missing := errors.AsType[*MissingError](err); err == nil || missing {
		return wire.ReasonNone
	}
	return wire.ReasonInternal
}

// refuse makes a refusal of one kind. The text says what was expected, what
// was found and, where there is one, an honest cause.
func refuse(kind error, format string, args ...any) error {
	return fmt.Errorf("trust: %s: %w", fmt.Sprintf(format, args...), kind)
}

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
