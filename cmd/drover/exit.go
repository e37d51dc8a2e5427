package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/cloud/evaluate"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/cloud/train"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/modelfile"
)

// Exit codes. Scripts depend on them: they are only added to.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitGate        = 5
	exitConflict    = 6
	exitData        = 7
	exitKey         = 8
	exitInterrupted = 130
)

// class is a kind of failure: its exit code and how it is told.
type class struct {
	code  int
	means string
	kinds []error          // sentinels
	match func(error) bool // beside kinds; may be nil
}

// classes in the order in which an error is compared with them; the first that
// fits counts.
func classes() []class {
	return []class{
		{exitUsage, "wrong usage: an unknown command or flag, a value out of range, a bad fleet.yaml",
			[]error{cloud.ErrSettings, registry.ErrInvalid, rollout.ErrPlan, train.ErrSpec, identity.ErrName}, is[*usageError]},
		{exitKey, "a key is not here, is not the right one, or its passphrase is missing or wrong",
			[]error{cloud.ErrNoKey, publish.ErrPassphrase, publish.ErrKeys}, nil},
		{exitData, "the pictures cannot be used: no labelled set, unreadable, or of other classes than the model's",
			[]error{dataset.ErrLayout, dataset.ErrEmpty, dataset.ErrUnreadable, dataset.ErrTooLarge, evaluate.ErrClasses, evaluate.ErrNothing, train.ErrData}, nil},
		{exitRefused, "the model is refused: no .tflite, cut, corrupt, of unknown operators, or not described",
			[]error{modelfile.ErrNotModel, modelfile.ErrTruncated, modelfile.ErrCorrupt, modelfile.ErrLimit, modelfile.ErrUnsupported, infer.ErrContract, cloud.ErrSpec},
			func(err error) bool { return is[*host.Refusal](err) || is[*host.RunError](err) || is[*host.Death](err) }},
		{exitGate, "a gate was missed or a verification failed",
			[]error{errGate, errBroken, publish.ErrInvalid, registry.ErrCorrupt}, nil},
		{exitConflict, "it exists already, is immutable, or something else is under way",
			[]error{cloud.ErrExists, cloud.ErrBusy, cloud.ErrEnded, identity.ErrExists, identity.ErrGrace, publish.ErrExists, publish.ErrStale, registry.ErrImmutable, registry.ErrLeaseHeld, fs.ErrExist, syscall.EADDRINUSE}, nil},
		{exitNotFound, "what was named does not exist: a fleet, model, release, rollout, device, file or program",
			[]error{registry.ErrNotFound, cloud.ErrNoPlan, cloud.ErrNoDelta, cloud.ErrNoFleet, publish.ErrNoFleet, identity.ErrNoFleet, host.ErrNoProgram, fs.ErrNotExist}, nil},
	}
}

// One of these is wrapped when a check that was asked for came out negative.
var (
	errGate   = errors.New("not good enough")
	errBroken = errors.New("the chain of trust is broken")
)

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// classify finds the class of an error. interrupted says that a signal came.
func classify(err error, interrupted bool) class {
	if interrupted && (errors.Is(err, context.Canceled) || is[*host.Death](err)) {
		return class{code: exitInterrupted}
	}
	for _, c := range classes() {
		if c.match != nil && c.match(err) {
			return c
		}
		for _, kind := range c.kinds {
			if errors.Is(err, kind) {
				return c
			}
		}
	}
	return class{code: exitFailed}
}

// exitCodesTopic is "drover help exit-codes".
func exitCodesTopic() *cobra.Command {
	return &cobra.Command{Use: "exit-codes", Short: "what the exit codes mean", Long: exitCodesText()}
}

func exitCodesText() string {
	var b strings.Builder
	b.WriteString("Exit codes of drover; of several that would fit the first in this order counts.\n\n")
	fmt.Fprintf(&b, "  %3d  done\n", exitOK)
	fmt.Fprintf(&b, "  %3d  interrupted by a signal (drover hub ends with 0)\n", exitInterrupted)
	for _, c := range classes() {
		fmt.Fprintf(&b, "  %3d  %s\n", c.code, c.means)
	}
	fmt.Fprintf(&b, "  %3d  anything else that failed", exitFailed)
	return b.String()
}

// usageError is a command that was called wrongly.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

func usage(hint, format string, a ...any) error {
	return &usageError{fmt.Sprintf(format, a...), hint}
}

// asUsage makes an error of cobra's a usage error.
func asUsage(err error) error {
	if is[*usageError](err) {
		return err
	}
	message, more, _ := strings.Cut(err.Error(), "\n")
	if _, meant, ok := strings.Cut(more, "Did you mean this?"); ok {
		return usage("did you mean "+strings.Join(strings.Fields(meant), " or ")+"?", "%s", message)
	}
	return usage("drover --help lists the commands", "%s", message)
}

// hintFor is what a person can do about an error, or "".
func hintFor(err error) string {
	if u, ok := errors.AsType[*usageError](err); ok {
		return u.hint
	}
	if n, ok := errors.AsType[*registry.NotFoundError](err); ok && n.Hint != "" {
		return n.Hint
	}
	for _, h := range []struct {
		kind error
		text string
	}{
		{cloud.ErrNoFleet, "drover init DIR makes a fleet; --fleet DIR names one"},
		{cloud.ErrExists, "drover init never touches a fleet that exists; choose another folder"},
		{identity.ErrExists, "an earlier drover init did not finish; remove the folder and repeat"},
		{cloud.ErrNoPlan, "drover rollout start begins one (or drover bundle --start, to all devices); then make the bundle again"},
		{cloud.ErrNoDelta, "drover release --delta-from makes deltas; without --base the bundle holds the models"},
		{cloud.ErrBusy, "drover rollout list shows it; drover rollout abort ID ends it"},
		{cloud.ErrNoKey, "--keys names the folder with the key, e.g. a USB stick; drover keys list shows who may sign"},
		{publish.ErrStale, "make the change again: drover keys list shows how things stand"},
		{publish.ErrPassphrase, "set DROVER_PASSPHRASE, or run drover on a terminal to be asked"},
		{host.ErrNoProgram, "make build puts it beside drover; --programs DIR names another folder"},
		{evaluate.ErrClasses, "--labels names the file of the model's labels, --label-column the right column of a table"},
		{modelfile.ErrNotModel, "drover takes .tflite files"},
		{modelfile.ErrTruncated, "the file is not whole: fetch it again"},
		{infer.ErrContract, "--labels FILE needs one line for each output; --mean and --std one value, or one per channel"},
		{syscall.EADDRINUSE, "another hub, or another program, has the port; fleet.yaml says which ports the hub takes"},
		{registry.ErrImmutable, "register a new version, or choose another name"},
	} {
		if errors.Is(err, h.kind) {
			return h.text
		}
	}
	if errors.Is(err, dataset.ErrLayout) && strings.Contains(err.Error(), "no column") {
		return "--file-column and --label-column name the columns"
	}
	if r, ok := errors.AsType[*host.Refusal](err); ok && strings.Contains(r.Message, "edgetpu") {
		return "this model was compiled for an Edge TPU; take the one it was compiled from"
	}
	return ""
}
