package anchor

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

type attack struct {
	name string
	do   func(c transport.TPM, dir string, r *record) error
	want error  // of Epoch and Raise
	sign error  // of a signature
	now  uint64 // the least epoch, where want is nil; it was 3
	disk bool   // concerns the disk alone
}

// again defines an index with the public area it had.
func again(c transport.TPM, h tpm2.TPMHandle, auth, content []byte) error {
	rsp, err := tpm2.NVReadPublic{NVIndex: h}.Execute(c)
	if err != nil {
		return err
	}
	pub, err := rsp.NVPublic.Contents()
	if err != nil {
		return err
	}
	return errors.Join(undefine(c, h), define(c, *pub, auth, content))
}

func evict(c transport.TPM, h tpm2.TPMHandle) error {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(c)
	if err != nil {
		return err
	}
	_, err = tpm2.EvictControl{
		Auth:         tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle: tpm2.NamedHandle{Handle: h, Name: rsp.Name}, PersistentHandle: h,
	}.Execute(c)
	return err
}

var attacks = []attack{
	{"nothing", func(transport.TPM, string, *record) error { return nil }, nil, nil, 3, false},
	{"counter deleted", func(c transport.TPM, _ string, r *record) error { return undefine(c, r.Counter.Handle) }, ErrTampered, nil, 0, false},
	{"base deleted", func(c transport.TPM, _ string, r *record) error { return undefine(c, r.Base.Handle) }, ErrTampered, nil, 0, false},
	{"counter defined anew with other attributes", func(c transport.TPM, _ string, r *record) error {
		p := r.template(r.Counter.Handle)
		p.AuthPolicy = tpm2.TPM2BDigest{}
		return errors.Join(undefine(c, r.Counter.Handle), define(c, p, r.auth(authNV), nil))
	}, ErrTampered, nil, 0, false},
	{"counter defined anew under the same name", func(c transport.TPM, _ string, r *record) error {
		return again(c, r.Counter.Handle, []byte("guess"), nil)
	}, ErrTampered, nil, 0, false},
	{"counter defined anew, never incremented", func(c transport.TPM, _ string, r *record) error {
		if err := undefine(c, r.Counter.Handle); err != nil {
			return err
		}
		_, err := tpm2.NVDefineSpace{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			Auth:       tpm2.TPM2BAuth{Buffer: r.auth(authNV)}, PublicInfo: tpm2.New2B(r.template(r.Counter.Handle)),
		}.Execute(c)
		return err
	}, ErrTampered, nil, 0, false},
	{"counter replaced by an ordinary index", func(c transport.TPM, _ string, r *record) error {
		p := r.template(r.Base.Handle)
		p.NVIndex, p.DataSize = r.Counter.Handle, 8
		return errors.Join(undefine(c, r.Counter.Handle), define(c, p, r.auth(authNV), binary.BigEndian.AppendUint64(nil, r.Zero)))
	}, ErrTampered, nil, 0, false},
	{"base defined anew under the same name", func(c transport.TPM, _ string, r *record) error {
		return again(c, r.Base.Handle, []byte("guess"), formatBase(r.Zero+3, r.Counter.Name))
	}, ErrTampered, nil, 0, false},
	// Whoever has the secret too.
	{"counter defined anew with the secret", func(c transport.TPM, _ string, r *record) error {
		return again(c, r.Counter.Handle, r.auth(authNV), nil)
	}, nil, nil, 4, false},
	{"base defined anew with the secret", func(c transport.TPM, _ string, r *record) error {
		return again(c, r.Base.Handle, r.auth(authNV), formatBase(r.Zero+3, r.Counter.Name))
	}, ErrTampered, nil, 0, false},
	{"base of another counter with the secret", func(c transport.TPM, _ string, r *record) error {
		return again(c, r.Base.Handle, r.auth(authNV), formatBase(r.Zero, r.Base.Name))
	}, ErrTampered, nil, 0, false},
	{"base of another kind with the secret", func(c transport.TPM, _ string, r *record) error {
		return again(c, r.Base.Handle, r.auth(authNV), make([]byte, baseSize))
	}, ErrTampered, nil, 0, false},
	{"key evicted", func(c transport.TPM, _ string, r *record) error { return evict(c, r.Key.Handle) }, nil, ErrTampered, 3, false},
	{"TPM cleared", func(c transport.TPM, _ string, _ *record) error {
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(c)
		return err
	}, ErrTampered, ErrTampered, 0, false},
	{"one copy of the record lost", func(_ transport.TPM, dir string, _ *record) error {
		return os.Remove(filepath.Join(dir, recordCopies[0]))
	}, nil, nil, 3, true},
	{"both copies of the record damaged", func(_ transport.TPM, dir string, _ *record) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, recordCopies[0]), []byte("{}"), 0o600), os.WriteFile(filepath.Join(dir, recordCopies[1]), nil, 0o600))
	}, ErrTampered, ErrTampered, 0, true},
	{"folder emptied", func(_ transport.TPM, dir string, _ *record) error { return os.RemoveAll(dir) }, ErrTampered, ErrTampered, 0, true},
}

// attacked opens an anchor at epoch 3, attacks it, and asks both the anchor
// that was open and one that is opened afterwards.
func attacked(t *testing.T, m machine, tc attack) {
	dir := filepath.Join(t.TempDir(), "anchor")
	a := openTPM(t, m, dir)
	if err := a.Raise(3); err != nil {
		t.Fatal(err)
	}
	behind(t, m, a, func(c transport.TPM) error { return tc.do(c, dir, a.rec) })
	if !tc.disk {
		inspect(t, a, tc) // what was in memory does not notice the disk
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := Open(t.Context(), m.options(dir))
	if err != nil {
		t.Fatal(err)
	}
	inspect(t, b, tc)
	if b.Assurance() != InHardware {
		t.Errorf("assurance %q", b.Assurance())
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func inspect(t *testing.T, a Anchor, tc attack) {
	t.Helper()
	e, err := a.Epoch()
	if !errors.Is(err, tc.want) || err == nil && e < tc.now {
		t.Errorf("epoch %d, %v; wanted %d, %v", e, err, tc.now, tc.want)
	}
	if err := a.Raise(e); !errors.Is(err, tc.want) {
		t.Errorf("raise: %v; wanted %v", err, tc.want)
	}
	s, err := a.Signer()
	if err == nil {
		_, err = s.Sign(nil, make([]byte, 32), sha256Hash)
	}
	if !errors.Is(err, tc.sign) {
		t.Errorf("sign: %v; wanted %v", err, tc.sign)
	}
}

func TestAttacks(t *testing.T) {
	for _, tc := range attacks {
		t.Run(tc.name, func(t *testing.T) { attacked(t, newEmulator(t), tc) })
	}
}
