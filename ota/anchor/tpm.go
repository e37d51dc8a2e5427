package anchor

import (
	"bytes"
	"context"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// TPM is an anchor in a TPM 2.0. It is safe for concurrent use within one
// process. It connects when it has to: a TPM that went away is used again once
// it is back.
type TPM struct {
	opts Options

	mu     sync.Mutex // one command at a time; guards what follows
	conn   transport.TPMCloser
	rec    *record // nil: none yet
	closed bool
}

var _ Anchor = (*TPM)(nil)

func newTPM(o Options) *TPM {
	o = o.withDefaults()
	if o.dial == nil {
		device := o.Device
		o.dial = func() (transport.TPMCloser, error) { return dial(device) }
	}
	return &TPM{opts: o}
}

// OpenTPM opens the anchor in the TPM at o.Device, a path or tcp:host:port,
// and provisions it the first time; ctx may end that between two steps, and
// the next call goes on from there.
//
// A TPM that o.Dir has a complete record of is opened even when it does not
// answer or was tampered with: the methods say so until that is mended.
// ErrUnavailable and ErrTampered concern provisioning.
func OpenTPM(ctx context.Context, o Options) (*TPM, error) {
	o = o.withDefaults()
	if o.Device == Auto {
		o.Device = DefaultDevice
	}
	t := newTPM(o)
	err := t.check(ctx)
	if err == nil {
		return t, nil
	}
	if t.rec == nil || t.rec.Stage != stageReady {
		return nil, errors.Join(err, t.Close())
	}
	o.Logger.Warn("anchor: the TPM cannot be used yet", "device", o.Device, "err", err)
	return t, nil
}

// check does everything an Epoch needs, provisioning included.
func (t *TPM) check(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.do(ctx, "check", func() error {
		_, _, err := t.read()
		return err
	})
}

// Assurance is InHardware.
func (t *TPM) Assurance() string { return InHardware }

// Close lets go of the TPM.
func (t *TPM) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	return t.drop()
}

func (t *TPM) drop() error {
	if t.conn == nil {
		return nil
	}
	c := t.conn
	t.conn = nil
	if err := c.Close(); err != nil {
		return fmt.Errorf("anchor: close TPM: %w", err)
	}
	return nil
}

// Epoch implements Anchor.
func (t *TPM) Epoch() (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var epoch uint64
	err := t.do(context.Background(), "read the epoch", func() error {
		value, zero, err := t.read()
		epoch = value - zero
		return err
	})
	if err != nil {
		return 0, err
	}
	return epoch, nil
}

// Raise implements Anchor.
func (t *TPM) Raise(to uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.do(context.Background(), fmt.Sprintf("raise the epoch to %d", to), func() error { return t.raise(to) })
}

// raise increments until the counter says enough: it begins by reading, so it
// may be repeated wherever it was cut.
func (t *TPM) raise(to uint64) error {
	value, zero, err := t.read()
	if err != nil {
		return err
	}
	epoch := value - zero
	if epoch >= to {
		return nil
	}
	if to-epoch > MaxRaise {
		return fmt.Errorf("%w: from %d to %d, at most %d at a time", ErrRange, epoch, to, MaxRaise)
	}
	if err := t.increment(to - epoch); err != nil {
		return err
	}
	if value, zero, err = t.read(); err != nil {
		return err
	}
	if value-zero < to {
		return fmt.Errorf("%w: the counter did not rise", ErrTampered)
	}
	return nil
}

// Signer implements Anchor. Once provisioned it is there without the TPM, but
// cannot sign. ErrUnavailable, ErrTampered.
func (t *TPM) Signer() (crypto.Signer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.load(); err != nil {
		return nil, err
	}
	if t.rec == nil || t.rec.Stage != stageReady {
		if err := t.do(context.Background(), "make the device key", func() error { return nil }); err != nil {
			return nil, err
		}
	}
	pub, err := t.rec.public()
	if err != nil {
		return nil, fmt.Errorf("%w: device key: %w", ErrTampered, err)
	}
	return &signer{t, pub}, nil
}

// do runs fn on a connected, provisioned TPM. fn must be repeatable: when the
// connection turns out to be a dead one it is run once more on a new one.
func (t *TPM) do(ctx context.Context, what string, fn func() error) error {
	if t.closed {
		return fmt.Errorf("%w: %s: closed", ErrUnavailable, what)
	}
	if err := t.load(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for again := t.conn != nil; ; again = false {
		err := t.once(ctx, fn)
		if !stale(err) {
			return t.judge(what, err)
		}
		if e := t.drop(); e != nil {
			t.opts.Logger.Debug("anchor: drop a dead connection", "err", e)
		}
		if !again {
			return t.judge(what, err)
		}
	}
}

func (t *TPM) once(ctx context.Context, fn func() error) error {
	if t.conn == nil {
		c, err := t.opts.dial()
		if err != nil {
			return err
		}
		t.conn = c
	}
	if t.rec == nil || t.rec.Stage != stageReady {
		if err := t.provision(ctx); err != nil {
			return err
		}
	}
	return fn()
}

// load reads the record, once there is one.
func (t *TPM) load() error {
	if t.rec != nil {
		return nil
	}
	rec, err := loadRecord(t.opts.Dir)
	if errors.Is(err, errNoRecord) {
		return nil
	}
	t.rec = rec
	return err
}

// stale says whether a new connection may help: the way failed, or the TPM was
// reset behind an emulator's socket and waits for its startup.
func stale(err error) bool {
	var link *linkError
	return errors.As(err, &link) || errors.Is(err, tpm2.TPMRCInitialize)
}

// judge gives an error its kind. Whatever is neither the way nor a code of the
// TPM is an answer that does not bear the HMAC it should.
func (t *TPM) judge(what string, err error) error {
	var link *linkError
	var rc tpm2.TPMRC
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrTampered), errors.Is(err, ErrUnavailable), errors.Is(err, ErrRange),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, err)
	case errors.As(err, &link), errors.As(err, &rc):
		return fmt.Errorf("%w at %s: %s: %w", ErrUnavailable, t.opts.Device, what, err)
	}
	return fmt.Errorf("%w: %s: the TPM's answer is not authentic: %w", ErrTampered, what, err)
}

// read gives the counter's value and what it was at epoch 0, both over
// sessions that only the indices in the record can answer.
func (t *TPM) read() (value, zero uint64, err error) {
	b, err := t.readIndex("base", t.rec.Base, baseSize)
	if err != nil {
		return 0, 0, err
	}
	zero, err = parseBase(b, t.rec.Counter.Name)
	if err != nil {
		return 0, 0, err
	}
	if zero != t.rec.Zero {
		return 0, 0, fmt.Errorf("%w: the base says %d, the record %d", ErrTampered, zero, t.rec.Zero)
	}
	if b, err = t.readIndex("counter", t.rec.Counter, 8); err != nil {
		return 0, 0, err
	}
	value = binary.BigEndian.Uint64(b)
	if value < zero {
		return 0, 0, fmt.Errorf("%w: the counter shows %d, less than its base %d", ErrTampered, value, zero)
	}
	return value, zero, nil
}

// baseMagic begins the base index's content: then the counter's value at epoch
// 0, 8 bytes big-endian, and the counter's name, 34 bytes.
var baseMagic = [4]byte{'D', 'R', 'V', '1'}

const (
	nameSize = 2 + 32 // algorithm, SHA-256
	baseSize = len(baseMagic) + 8 + nameSize
)

func formatBase(zero uint64, counter []byte) []byte {
	return append(binary.BigEndian.AppendUint64(baseMagic[:len(baseMagic):len(baseMagic)], zero), counter...)
}

func parseBase(b, counter []byte) (uint64, error) {
	if len(b) != baseSize || !bytes.Equal(b[:4], baseMagic[:]) {
		return 0, fmt.Errorf("%w: the base index has a foreign content", ErrTampered)
	}
	if !bytes.Equal(b[12:], counter) {
		return 0, fmt.Errorf("%w: the base index belongs to another counter", ErrTampered)
	}
	return binary.BigEndian.Uint64(b[4:12]), nil
}
