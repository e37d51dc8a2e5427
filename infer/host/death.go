package host

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"unicode"

	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host/protocol"
)

// Errors of a Child.
var (
	ErrClosed = errors.New("infer/host: the child has been closed")
	ErrState  = errors.New("infer/host: request out of order") // e.g. Classify before Load
)

// DeathKind says how a child ended.
type DeathKind string

// The ways to end.
const (
	Exited   DeathKind = "exited"   // by itself, with Code
	Signaled DeathKind = "signal"   // by Signal, which nobody here sent: a crash, or the cage
	Protocol DeathKind = "protocol" // killed because it said what it may not say
	Killed   DeathKind = "killed"   // killed because it did not answer in time
)

// Death is why a child ended other than by Close.
type Death struct {
	Kind   DeathKind
	Code   int            // Exited
	Signal syscall.Signal // Signaled
	Reason error          // Protocol and Killed: what it did; wraps the context's error
	PID    int

	LastWords string // the line of its stderr that tells most, printable
	Stderr    string // the last 4 KiB of it, printable
}

// Error is one line.
func (d *Death) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "infer/host: %s (pid %d) ", ProgramName, d.PID)
	switch d.Kind {
	case Exited:
		if d.Code == cage.ExitCode {
			b.WriteString("could not be locked up")
		} else {
			fmt.Fprintf(&b, "exited with code %d", d.Code)
		}
	case Signaled:
		fmt.Fprintf(&b, "ended by signal %d (%v)", int(d.Signal), d.Signal)
		switch d.Signal {
		case syscall.SIGSYS:
			b.WriteString(": it made a system call that its cage forbids")
		case syscall.SIGKILL:
			b.WriteString(": killed from outside, as the kernel does when memory runs out")
		}
	case Protocol:
		fmt.Fprintf(&b, "was killed, it broke the protocol: %v", d.Reason)
	case Killed:
		fmt.Fprintf(&b, "was killed: %v", d.Reason)
	}
	if d.LastWords != "" {
		fmt.Fprintf(&b, "; last words: %s", clean(d.LastWords, 400))
	}
	return b.String()
}

// Unwrap gives the reason.
func (d *Death) Unwrap() error { return d.Reason }

// Refusal is the child's answer to a model it cannot run.
type Refusal struct {
	Kind    protocol.RefusalKind
	Message string // printable, at most 2 KiB
}

// Error is one line.
func (r *Refusal) Error() string {
	return fmt.Sprintf("infer/host: model refused (%s): %s", r.Kind, r.Message)
}

// RunError is the child's answer to a picture it could not classify.
type RunError struct {
	Status  protocol.Status
	Message string
}

// Error is one line.
func (e *RunError) Error() string {
	what := "the runtime failed"
	if e.Status == protocol.BadFrame {
		what = "picture refused"
	}
	return fmt.Sprintf("infer/host: %s: %s", what, e.Message)
}

// clean makes a child's text fit for a log and a terminal: one line, printable,
// at most limit bytes.
func clean(s string, limit int) string {
	cut := len(s) > limit
	if cut {
		s = s[:limit]
	}
	s = strings.ToValidUTF8(s, "�")
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if cut {
		s += "…"
	}
	return s
}
