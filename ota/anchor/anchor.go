package anchor

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/google/go-tpm/tpm2/transport"
)

// What Assurance says.
const (
	Software   = "software"
	InHardware = "tpm"
)

// The kinds of failure.
var (
	// ErrTampered: the anchor was there and is gone, damaged or another one.
	// Epoch 0 must not be taken for granted.
	ErrTampered = errors.New("anchor: missing or damaged; the device may have been tampered with")
	// ErrUnavailable: the TPM does not answer or cannot do what is needed.
	// Nothing is wrong with the anchor as far as is known; try again.
	ErrUnavailable = errors.New("anchor: no usable TPM")
	// ErrNoKey: this anchor holds no device key.
	ErrNoKey = errors.New("anchor: holds no device key")
	// ErrRange: one Raise may not go that far.
	ErrRange = errors.New("anchor: too far for one step")
)

// MaxRaise is how far one Raise may lift the epoch in a TPM: NV memory wears
// out, and each increment is a write.
const MaxRaise = 1024

// Anchor is what Open gives. It is safe for concurrent use within one process;
// calls wait for each other, as a TPM does one thing at a time.
type Anchor interface {
	// Epoch is the least security epoch the device accepts. It asks the TPM:
	// some 10 ms to 200 ms. An error (ErrTampered, ErrUnavailable) means that
	// the epoch is not known, not that it is 0.
	Epoch() (uint64, error)
	// Raise lifts the epoch durably, at most by MaxRaise; one that is already
	// as high is a success. After a power cut or an error the epoch is anything
	// between its old value and to: call it again. ErrRange, ErrTampered,
	// ErrUnavailable.
	Raise(to uint64) error
	// Assurance is Software or InHardware.
	Assurance() string
	// Signer is the device key: ECDSA P-256, for digests of at least 32 bytes.
	// ErrNoKey where the key belongs into a file.
	Signer() (crypto.Signer, error)
	// Close lets go of the TPM. Later calls fail with ErrUnavailable.
	Close() error
}

// What Options.Device may be besides a path.
const (
	Auto = "auto"
	Off  = "off"
)

// DefaultDevice is where Auto looks: the kernel's own resource manager.
const DefaultDevice = "/dev/tpmrm0"

// Where the anchor stands unless Options says otherwise: in the range for the
// owner's indices and in that for persistent keys.
const (
	DefaultNVIndexBase = 0x0180D700
	DefaultKeyHandle   = 0x8100D700
)

// Options says where the anchor is.
type Options struct {
	// Device is Auto, Off, the path of a character device or of a Unix socket,
	// or tcp:host:port (an emulator). Empty means Auto.
	Device string
	// Dir is the folder for the anchor's files; it is made when missing.
	Dir string
	// NVIndexBase is the first of two NV indices, KeyHandle the key's
	// persistent handle; 0 means the defaults. Once provisioned the record
	// counts.
	NVIndexBase, KeyHandle uint32
	// TakeOwner lets provisioning set the auth values of the owner hierarchy
	// and of lockout where they are empty, so that nobody without the secret in
	// Dir can remove indices or clear the TPM. It shuts every other user of the
	// owner hierarchy out: only for a device whose TPM is drover's own.
	TakeOwner bool
	Logger    *slog.Logger

	dial func() (transport.TPMCloser, error) // instead of Device, in tests
}

func (o Options) withDefaults() Options {
	if o.Device == "" {
		o.Device = Auto
	}
	if o.NVIndexBase == 0 {
		o.NVIndexBase = DefaultNVIndexBase
	}
	if o.KeyHandle == 0 {
		o.KeyHandle = DefaultKeyHandle
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// Open chooses and opens the device's anchor:
//
//   - A folder whose record says that the TPM is in use gets the TPM, whether
//     it answers or not. When the configuration says Off, or the record is
//     damaged, the anchor answers ErrTampered to everything: what was in a TPM
//     never becomes a file again by itself.
//   - A Device that is named is used, and waited for when it is not there yet.
//     It takes over the epoch of a file anchor.
//   - Auto keeps a file anchor where there is one, else takes a TPM at
//     DefaultDevice when it can be provisioned, else makes a file anchor.
//
// An error means that no anchor could be made at all (the folder cannot be
// written). What is wrong with the anchor itself is told by Epoch, so that the
// device can start, run what it has and report.
func Open(ctx context.Context, o Options) (Anchor, error) {
	o = o.withDefaults()
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	rec, err := loadRecord(o.Dir)
	if err != nil && !errors.Is(err, errNoRecord) {
		return shut(o, err), nil
	}
	ready := err == nil && rec.Stage == stageReady
	switch {
	case ready && o.Device == Off:
		return shut(o, fmt.Errorf("%w: epoch and key are in the TPM at %s, but the configuration says tpm: off", ErrTampered, rec.Device)), nil
	case ready && o.Device == Auto:
		o.Device = rec.Device
		return openConfigured(ctx, o), nil
	case o.Device == Off:
		return OpenFile(o.Dir)
	case o.Device == Auto:
		return openAuto(ctx, o)
	}
	return openConfigured(ctx, o), nil
}

// openAuto opens where neither the record nor the configuration names a TPM.
func openAuto(ctx context.Context, o Options) (Anchor, error) {
	o.Device = DefaultDevice
	if o.dial == nil {
		if _, err := os.Stat(o.Device); err != nil {
			return OpenFile(o.Dir)
		}
	}
	hasFile := fileExists(o.Dir)
	t := newTPM(o)
	var err error
	if hasFile {
		err = t.vacant()
	} else {
		err = t.check(ctx)
	}
	switch {
	case errors.Is(err, ErrTampered):
		return shut(o, errors.Join(err, t.Close())), nil
	case err == nil && !hasFile:
		return t, nil
	case err != nil:
		o.Logger.Warn("anchor: the TPM is not used, a file takes its place", "device", o.Device, "err", err)
	}
	if err := t.Close(); err != nil {
		o.Logger.Warn("anchor: close the TPM", "err", err)
	}
	return OpenFile(o.Dir)
}

// openConfigured opens a TPM that has to be used, even when it does not answer.
func openConfigured(ctx context.Context, o Options) *TPM {
	t := newTPM(o)
	if err := t.check(ctx); err != nil {
		o.Logger.Warn("anchor: the TPM cannot be used yet", "device", o.Device, "err", err)
	}
	return t
}

// refusing is an anchor that must not be believed and cannot be mended by
// itself.
type refusing struct{ why error }

func shut(o Options, why error) Anchor {
	o.Logger.Error("anchor: refused", "err", why)
	return refusing{why}
}

func (r refusing) Epoch() (uint64, error)         { return 0, r.why }
func (r refusing) Raise(uint64) error             { return r.why }
func (r refusing) Assurance() string              { return InHardware }
func (r refusing) Signer() (crypto.Signer, error) { return nil, r.why }
func (r refusing) Close() error                   { return nil }
