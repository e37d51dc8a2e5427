package ota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/store"
)

// Candidate is a verified release as it lies on the device: one to be probed,
// on trial, or the one to run. It is a value; what it points to must not be
// changed.
type Candidate struct {
	Release    wire.ReleaseRef
	Manifest   *wire.Manifest
	Variant    *wire.Variant   // of the manifest: what this device runs
	ModelPath  string          // where the model lies; to be shown, Model reads it
	GoldenPath string          // where the golden inputs lie; Golden reads them
	Runtime    json.RawMessage // what Probe chose; nil before
	blobs      *store.Blobs
}

// Model reads the model from disk and checks its digest: the bytes returned
// are the signed ones, whatever has happened to the file. They are what goes
// into the child's memfd. A damaged file is store.ErrCorrupt.
func (c Candidate) Model() ([]byte, error) {
	return c.blobs.Read(c.Variant.Model.Digest, c.Variant.Model.Size)
}

// Golden reads the golden inputs from disk, checks their digest, and decodes
// them.
func (c Candidate) Golden() (*wire.Golden, error) {
	b, err := c.blobs.Read(c.Variant.Golden.Digest, c.Variant.Golden.Size)
	if err != nil {
		return nil, err
	}
	return wire.DecodeGolden(b, c.Variant.Spec.Contract)
}

// Refusal is why a step said no; every interface below returns it where the
// release is to blame. Any other error counts as a fault of the device
// (wire.ReasonInternal).
type Refusal struct {
	Reason  wire.Reason
	Message string // one line for a person
	Err     error  // what caused it, or nil
}

// Error implements error.
func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Message }

// Unwrap is the cause.
func (r *Refusal) Unwrap() error { return r.Err }

func refusef(reason wire.Reason, format string, args ...any) *Refusal {
	err := fmt.Errorf(format, args...)
	return &Refusal{Reason: reason, Message: err.Error(), Err: errors.Unwrap(err)}
}

// ErrWait is returned by Trust.Refresh when metadata it needs was not offered
// yet. It is no refusal.
var ErrWait = errors.New("ota: metadata has not all arrived")

// Trust turns metadata into verified orders. FromTrust makes one of a
// *trust.Client. The Updater calls it from one goroutine.
type Trust interface {
	// OfferCurrent and OfferRole take what came from the network. An error
	// says that the bytes are of no use, and why (*Refusal).
	OfferCurrent(payload []byte) error
	OfferRole(role string, version int64, raw []byte) error
	// Refresh makes what was offered count, all or nothing. ErrWait or a
	// *Refusal otherwise.
	Refresh() error
	// Select names the release this device is to run; a nil Order when no
	// plan means it. A *Refusal when plans are expired or not well signed.
	Select(device string, labels map[string]string) (Order, error)
}

// Order is a plan that both roles signed.
type Order interface {
	Plan() wire.Plan
	// Ref is the manifest's digest and length.
	Ref() wire.BlobRef
	// Verify answers what was signed if b is it, else a *Refusal.
	Verify(manifest []byte) (*wire.Manifest, error)
}

// ProbeReport is what a probe measured.
type ProbeReport struct {
	// Runtime is how the model runs best here (kernels, threads): JSON that
	// only Prober and Activator understand. It is stored with the release.
	Runtime     json.RawMessage
	LatencyP99  time.Duration // of one inference, preprocessing included
	MemoryBytes int64         // resident size of the child
	Cases       int           // golden inputs that gave the signed output
}

// Prober tries a candidate apart from what is running.
type Prober interface {
	// Probe runs the candidate in a cage of its own: tensors as in the
	// contract, golden inputs within tolerance, latency and memory within
	// budget. It returns soon after ctx ends and leaves nothing behind. A
	// *Refusal has reason model, contract, golden, latency, memory, crash or
	// hang.
	Probe(ctx context.Context, c Candidate) (ProbeReport, error)
}

// Activator decides which release answers the frames. The Updater calls one
// method at a time; each returns soon after ctx ends.
type Activator interface {
	// Activate makes c answer. The release that answered before is kept warm
	// where memory allows. On error it is as if Activate had not been called.
	// It may be called again with the release that already answers.
	Activate(ctx context.Context, c Candidate) error
	// Return makes the last committed release answer again and ends the one
	// on trial; to is nil when the device has none yet: then nothing answers.
	// It is also called when Activate failed, and when to already answers:
	// then it succeeds.
	Return(ctx context.Context, to *Candidate) error
	// Commit says that the trial is over: what was kept warm may end.
	Commit(ctx context.Context, c Candidate) error
}

// Health judges a release on trial.
type Health interface {
	// Probation returns nil when c has given that many good results since it
	// was activated, a *Refusal as soon as it should not stay: reason crash,
	// hang, latency or collapse. It returns soon after ctx ends. The deadline
	// is the Updater's.
	Probation(ctx context.Context, c Candidate, frames int) error
}

// Anchor holds the least security epoch the device accepts. An error means
// that the anchor cannot be asked, not that the epoch is 0.
type Anchor interface {
	Epoch() (uint64, error)
	// Raise lifts the epoch; one that is already as high is a success.
	Raise(to uint64) error
}
