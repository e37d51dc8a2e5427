package anchor

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
)

// provision makes counter, base and key. The record is written before the
// first change to the TPM; from then on each step looks at what is there
// already, so that a cut anywhere is mended by the next call.
func (t *TPM) provision(ctx context.Context) error {
	if t.rec == nil {
		if err := t.begin(); err != nil {
			return err
		}
	}
	p := &provisioning{TPM: t}
	if err := p.prepare(); err != nil {
		return err
	}
	err := p.run(ctx)
	if err = errors.Join(err, flush(t.conn, p.srk)); err != nil {
		return err
	}
	return p.finish()
}

// begin looks that nobody has our handles, and writes the first record.
func (t *TPM) begin() error {
	floor := uint64(0)
	if fileExists(t.opts.Dir) {
		e, err := (&File{dir: osFolder(t.opts.Dir)}).Epoch()
		if err != nil {
			return err
		}
		floor = e
	}
	rec, err := newRecord(t.opts, floor)
	if err != nil {
		return local(err)
	}
	if err := t.foreign(rec); err != nil {
		return err
	}
	if err := os.MkdirAll(t.opts.Dir, 0o700); err != nil {
		return local(err)
	}
	if err := rec.save(t.opts.Dir); err != nil {
		return local(err)
	}
	t.rec = rec
	return nil
}

// foreign is ErrTampered when something has one of the record's handles.
func (t *TPM) foreign(r *record) error {
	const text = "%w: 0x%08x in the TPM is taken, though %s has no record of it: by something else, or by this device before its state was lost"
	for _, x := range []thing{r.Counter, r.Base} {
		pub, _, err := t.indexPublic(x.Handle)
		if err != nil {
			return err
		}
		if pub != nil {
			return fmt.Errorf(text, ErrTampered, uint32(x.Handle), t.opts.Dir)
		}
	}
	pub, _, err := t.keyPublic(r.Key.Handle)
	if err == nil && pub != nil {
		err = fmt.Errorf(text, ErrTampered, uint32(r.Key.Handle), t.opts.Dir)
	}
	return err
}

// vacant is foreign for a folder that does without the TPM. A TPM that cannot
// be asked is no error: nothing depends on it.
func (t *TPM) vacant() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.load() != nil || t.rec != nil {
		return nil
	}
	c, err := t.opts.dial()
	if err != nil {
		return nil
	}
	t.conn = c
	r, err := newRecord(t.opts, 0)
	if err != nil {
		return nil
	}
	if err := t.foreign(r); errors.Is(err, ErrTampered) {
		return err
	}
	return nil
}

// local marks an error of this machine, not of the TPM.
func local(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

// provisioning is one run of provision.
type provisioning struct {
	*TPM
	srk     tpm2.TPMHandle // transient: parent of the key, salt of sessions
	srkName tpm2.TPM2BName
	srkPub  *tpm2.TPMTPublic
	owner   []byte // the owner hierarchy's auth value
}

// Bits of TPM_PT_PERMANENT.
const (
	ownerAuthSet   = 1 << 0
	lockoutAuthSet = 1 << 2
)

// prepare finds the owner's auth value and makes the storage root key.
func (p *provisioning) prepare() error {
	permanent, err := p.permanent()
	if err != nil {
		return err
	}
	if permanent&ownerAuthSet != 0 {
		if p.owner, err = ownerAuth(p.opts.Dir); err != nil {
			return local(err)
		}
		if p.owner == nil && p.rec.TakeOwner {
			p.owner = p.rec.auth(authOwner)
		}
	}
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: session(p.owner)},
		InPublic:      tpm2.New2B(tpm2.ECCSRKTemplate),
	}.Execute(p.conn)
	if refusesAuth(err) {
		return fmt.Errorf("%w: the TPM's owner hierarchy has an auth value: put it into %s and start again", ErrUnavailable, filepath.Join(p.opts.Dir, "owner-auth"))
	}
	if err != nil {
		return err
	}
	p.srk, p.srkName = rsp.ObjectHandle, rsp.Name
	p.srkPub, err = rsp.OutPublic.Contents()
	return err
}

func (p *provisioning) permanent() (uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTPermanent), PropertyCount: 1}.Execute(p.conn)
	if err != nil {
		return 0, err
	}
	list, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil {
		return 0, err
	}
	for _, x := range list.TPMProperty {
		if x.Property == tpm2.TPMPTPermanent {
			return x.Value, nil
		}
	}
	return 0, local(errors.New("the TPM does not say which auth values are set"))
}

// secret hides a command's first parameter, an auth value, from the bus.
func (p *provisioning) secret(auth []byte) tpm2.Session {
	return session(auth, tpm2.Salted(p.srk, *p.srkPub), tpm2.AESEncryption(128, tpm2.EncryptIn))
}

func (p *provisioning) ownerHandle(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: s}
}

func (p *provisioning) run(ctx context.Context) error {
	for _, step := range []func() error{p.takeOwner, p.counter, p.base, p.key, p.floor} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// takeOwner sets the auth values of owner and lockout where they are empty. The
// answer would be keyed by the new value, so the old, empty one is given as a
// password, and a second session hides the new one.
func (p *provisioning) takeOwner() error {
	if !p.rec.TakeOwner {
		return nil
	}
	permanent, err := p.permanent()
	if err != nil {
		return err
	}
	for _, h := range []struct {
		bit    uint32
		handle tpm2.TPMHandle
		use    string
	}{{ownerAuthSet, tpm2.TPMRHOwner, authOwner}, {lockoutAuthSet, tpm2.TPMRHLockout, authLockout}} {
		if permanent&h.bit != 0 {
			continue
		}
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: h.handle, Auth: tpm2.PasswordAuth(nil)},
			NewAuth:    tpm2.TPM2BAuth{Buffer: p.rec.auth(h.use)},
		}.Execute(p.conn, p.secret(nil))
		if err != nil {
			return fmt.Errorf("set the auth value of the %s: %w", h.use, err)
		}
		if h.bit == ownerAuthSet {
			p.owner = p.rec.auth(authOwner)
		}
	}
	return nil
}

// template is the public area of counter or base as it is defined. Anybody may
// define an index with the same one; only the auth value tells them apart.
func (r *record) template(h tpm2.TPMHandle) tpm2.TPMSNVPublic {
	p := tpm2.TPMSNVPublic{
		NVIndex: h, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: r.Tag},
		Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, OwnerRead: true, NoDA: true},
	}
	if h == r.Counter.Handle {
		p.Attributes.NT, p.DataSize = tpm2.TPMNTCounter, 8
	} else {
		p.Attributes.WriteDefine, p.DataSize = true, uint16(baseSize)
	}
	return p
}

// index defines x when it is missing, and says what it is. A thing that is
// there must be the one an earlier run defined.
func (p *provisioning) index(what string, x *thing) (*tpm2.TPMSNVPublic, error) {
	want := p.rec.template(x.Handle)
	pub, name, err := p.indexPublic(x.Handle)
	if err == nil && pub == nil {
		_, err = tpm2.NVDefineSpace{
			AuthHandle: p.ownerHandle(p.secret(p.owner)),
			Auth:       tpm2.TPM2BAuth{Buffer: p.rec.auth(authNV)}, PublicInfo: tpm2.New2B(want),
		}.Execute(p.conn)
		if err == nil {
			pub, name, err = p.indexPublic(x.Handle)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("define the %s index 0x%08x: %w", what, uint32(x.Handle), err)
	}
	want.Attributes.Written, want.Attributes.WriteLocked = pub.Attributes.Written, pub.Attributes.WriteLocked
	if expected, err := tpm2.NVName(&want); err != nil || !bytes.Equal(expected.Buffer, name) {
		return nil, fmt.Errorf("%w: the %s index 0x%08x is not the one this device made", ErrTampered, what, uint32(x.Handle))
	}
	x.Name = name
	return pub, nil
}

// rename reads x's name again: its attributes are part of it, and they change
// with the first increment or write and with the lock.
func (p *provisioning) rename(what string, x *thing) error {
	_, err := p.index(what, x)
	return err
}

// counter makes the counter and gives it its first value.
func (p *provisioning) counter() error {
	x := &p.rec.Counter
	pub, err := p.index("counter", x)
	if err != nil {
		return err
	}
	if !pub.Attributes.Written {
		if err := p.increment(1); err != nil {
			return err
		}
	}
	return p.rename("counter", x)
}

// base writes down where the counter stands, and locks that. What an earlier
// run wrote stays: the counter has not moved since.
func (p *provisioning) base() error {
	x := &p.rec.Base
	pub, err := p.index("base", x)
	if err != nil {
		return err
	}
	if !pub.Attributes.Written {
		b, err := p.readIndex("counter", p.rec.Counter, 8)
		if err != nil {
			return err
		}
		_, err = tpm2.NVWrite{
			AuthHandle: x.authorized(session(p.rec.auth(authNV))), NVIndex: x.named(),
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: formatBase(binary.BigEndian.Uint64(b), p.rec.Counter.Name)},
		}.Execute(p.conn)
		if err != nil {
			return p.explainIndex("base", *x, err)
		}
		if err := p.rename("base", x); err != nil {
			return err
		}
	}
	if !pub.Attributes.WriteLocked {
		_, err := tpm2.NVWriteLock{AuthHandle: x.authorized(session(p.rec.auth(authNV))), NVIndex: x.named()}.Execute(p.conn)
		if err != nil {
			return p.explainIndex("base", *x, err)
		}
	}
	if err := p.rename("base", x); err != nil {
		return err
	}
	b, err := p.readIndex("base", *x, baseSize)
	if err != nil {
		return err
	}
	p.rec.Zero, err = parseBase(b, p.rec.Counter.Name)
	return err
}

// key makes the device key, or finds what an earlier run made.
func (p *provisioning) key() error {
	x := &p.rec.Key
	pub, name, err := p.keyPublic(x.Handle)
	if err == nil && pub == nil {
		if err = p.makeKey(); err == nil {
			pub, name, err = p.keyPublic(x.Handle)
		}
	}
	if err != nil {
		return fmt.Errorf("make the device key 0x%08x: %w", uint32(x.Handle), err)
	}
	if !bytes.Equal(pub.AuthPolicy.Buffer, p.rec.Tag) {
		return fmt.Errorf("%w: the key 0x%08x is not the one this device made", ErrTampered, uint32(x.Handle))
	}
	x.Name = name
	k, err := tpm2.Pub(*pub)
	if err != nil {
		return err
	}
	p.rec.Public, err = x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return err
	}
	// A signature that verifies shows that the key is ours, auth value included.
	s := &signer{t: p.TPM}
	if s.pub, err = p.rec.public(); err != nil {
		return err
	}
	_, err = s.sign(make([]byte, 32))
	return err
}

// floor takes over the epoch of a file anchor.
func (p *provisioning) floor() error {
	if p.rec.Floor == 0 {
		return nil
	}
	return p.raise(p.rec.Floor)
}

// finish writes the complete record; the file anchor has no meaning any more.
func (p *provisioning) finish() error {
	p.rec.Stage, p.rec.Device = stageReady, p.opts.Device
	if err := p.rec.save(p.opts.Dir); err != nil {
		p.rec.Stage = stageProvisioning
		return local(err)
	}
	for _, name := range copies {
		if err := os.Remove(filepath.Join(p.opts.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			p.opts.Logger.Warn("anchor: remove the file anchor", "err", err)
		}
	}
	p.opts.Logger.Info("anchor: the TPM is in use", "device", p.opts.Device, "base", p.rec.Zero)
	return nil
}
