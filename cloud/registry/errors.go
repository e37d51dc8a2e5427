package registry

import (
	"errors"
	"fmt"
)

// The kinds of refusal. Every error of this package that a caller may want to
// tell apart wraps one of them.
var (
	ErrNotFound    = errors.New("not found")
	ErrImmutable   = errors.New("exists with other content and is immutable")
	ErrInvalid     = errors.New("invalid")
	ErrTooLarge    = errors.New("too large")
	ErrCorrupt     = errors.New("stored bytes do not match their digest")
	ErrLeaseHeld   = errors.New("lease is held by another process")
	ErrTokenSpent  = errors.New("token has no uses left")
	ErrTokenLapsed = errors.New("token has expired")
	ErrNewerSchema = errors.New("the registry was written by a newer drover")
)

// NotFoundError says what is missing and what could be meant. It wraps
// ErrNotFound.
type NotFoundError struct {
	What string // "model", "blob", …
	Name string
	Hint string // what to do or what exists instead; may be empty
}

// Error implements error.
func (e *NotFoundError) Error() string {
	s := fmt.Sprintf("registry: %s %q not found", e.What, e.Name)
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap makes errors.Is(err, ErrNotFound) true.
func (e *NotFoundError) Unwrap() error { return ErrNotFound }

func invalid(format string, a ...any) error {
	return fmt.Errorf("registry: %w: "+format, append([]any{ErrInvalid}, a...)...)
}
