package trust

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
)

// The kinds of refusal, asserted with errors.Is.
var (
	ErrSignature   = tufcore.ErrSignature
	ErrRollback    = tufcore.ErrRollback
	ErrExpired     = tufcore.ErrExpired
	ErrDigest      = tufcore.ErrDigest
	ErrMalformed   = tufcore.ErrMalformed
	ErrVersionSkip = tufcore.ErrVersionSkip
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
// for a MissingError alone, which is no failure.
func Reason(err error) wire.Reason {
	for _, k := range []struct {
		kind   error
		reason wire.Reason
	}{
		{ErrSignature, wire.ReasonSignature},
		{ErrRollback, wire.ReasonRollback},
		{ErrDigest, wire.ReasonDigest},
		{ErrExpired, wire.ReasonExpired},
		{ErrVersionSkip, wire.ReasonSequence},
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

// refuse makes a refusal of one kind.
func refuse(kind error, format string, args ...any) error {
	return tufcore.Refuse(kind, format, args...)
}
