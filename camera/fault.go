package camera

import "fmt"

// FaultKind names why a source delivers no frames, for programs; the message
// beside it is for people.
type FaultKind string

// The faults of a source.
const (
	FaultNoSource FaultKind = "no-such-source" // device, file or folder is not there or may not be opened; host unknown
	FaultNoAnswer FaultKind = "no-answer"      // the other side did not answer within the open timeout
	FaultStalled  FaultKind = "stalled"        // it had been opened, but no frame came for a while
	FaultEnd      FaultKind = "end-of-stream"  // the last frame of a replay, or the other side ended the stream
	FaultDecode   FaultKind = "decode"         // bytes came that are no pictures
	FaultTooLarge FaultKind = "too-large"      // the frames do not fit into the ring
	FaultInternal FaultKind = "internal"       // a mistake in the program itself
)

// Known says whether k is one of the kinds above.
func (k FaultKind) Known() bool {
	switch k {
	case FaultNoSource, FaultNoAnswer, FaultStalled, FaultEnd, FaultDecode, FaultTooLarge, FaultInternal:
		return true
	}
	return false
}

// Fault is the error type of everything that goes wrong with a source.
type Fault struct {
	Kind FaultKind
	Err  error // never contains a password
}

// Error implements error.
func (f *Fault) Error() string { return fmt.Sprintf("camera: %s: %v", f.Kind, f.Err) }

// Unwrap gives the cause to errors.Is and errors.As.
func (f *Fault) Unwrap() error { return f.Err }
