package anchor

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// session authorizes one command by an auth value, which it does not show.
func session(auth []byte, more ...tpm2.AuthOption) tpm2.Session {
	return tpm2.HMAC(tpm2.TPMAlgSHA256, 16, append([]tpm2.AuthOption{tpm2.Auth(auth)}, more...)...)
}

func (x thing) named() tpm2.NamedHandle {
	return tpm2.NamedHandle{Handle: x.Handle, Name: tpm2.TPM2BName{Buffer: x.Name}}
}

func (x thing) authorized(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: x.Handle, Name: tpm2.TPM2BName{Buffer: x.Name}, Auth: s}
}

// readIndex reads size bytes of the index that x names, and of no other one.
func (t *TPM) readIndex(what string, x thing, size int) ([]byte, error) {
	rsp, err := tpm2.NVRead{
		AuthHandle: x.authorized(session(t.rec.auth(authNV))), NVIndex: x.named(), Size: uint16(size),
	}.Execute(t.conn)
	if err != nil {
		return nil, t.explainIndex(what, x, err)
	}
	if len(rsp.Data.Buffer) != size {
		return nil, fmt.Errorf("%w: the %s index gave %d bytes", ErrTampered, what, len(rsp.Data.Buffer))
	}
	return rsp.Data.Buffer, nil
}

// increment lifts the counter by n, under one session.
func (t *TPM) increment(n uint64) (err error) {
	s, end, err := tpm2.HMACSession(t.conn, tpm2.TPMAlgSHA256, 16, tpm2.Auth(t.rec.auth(authNV)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	c := t.rec.Counter
	for range n {
		if _, err := (tpm2.NVIncrement{AuthHandle: c.authorized(s), NVIndex: c.named()}).Execute(t.conn); err != nil {
			return t.explainIndex("counter", c, err)
		}
	}
	return nil
}

// explainIndex finds out why the TPM refused a command on x.
func (t *TPM) explainIndex(what string, x thing, err error) error {
	var rc tpm2.TPMRC
	if stale(err) || !errors.As(err, &rc) || rc.IsWarning() {
		return err
	}
	pub, name, e := t.indexPublic(x.Handle)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case pub == nil:
		return fmt.Errorf("%w: the %s index 0x%08x is gone", ErrTampered, what, uint32(x.Handle))
	case !bytes.Equal(name, x.Name):
		return fmt.Errorf("%w: the %s index 0x%08x is not the one this device made", ErrTampered, what, uint32(x.Handle))
	case refusesAuth(err):
		return fmt.Errorf("%w: the %s index 0x%08x was defined anew: it does not know this device's auth value", ErrTampered, what, uint32(x.Handle))
	}
	return err
}

func refusesAuth(err error) bool {
	return errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail)
}

// indexPublic reads an index's public area and name; nil when there is none.
func (t *TPM) indexPublic(h tpm2.TPMHandle) (*tpm2.TPMSNVPublic, []byte, error) {
	rsp, err := tpm2.NVReadPublic{NVIndex: h}.Execute(t.conn)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	pub, err := rsp.NVPublic.Contents()
	if err != nil {
		return nil, nil, err
	}
	return pub, rsp.NVName.Buffer, nil
}

// keyPublic reads a persistent object's public area and name; nil when there
// is none.
func (t *TPM) keyPublic(h tpm2.TPMHandle) (*tpm2.TPMTPublic, []byte, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(t.conn)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	pub, err := rsp.OutPublic.Contents()
	if err != nil {
		return nil, nil, err
	}
	return pub, rsp.Name.Buffer, nil
}
