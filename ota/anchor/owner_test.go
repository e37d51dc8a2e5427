package anchor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// What users of the TPM without the secret may do, with an owner hierarchy that
// is open and with one that was taken.
func TestWithoutTheSecret(t *testing.T) {
	for _, own := range []bool{false, true} {
		e, dir := newEmulator(t), t.TempDir()
		o := e.options(dir)
		o.TakeOwner = own
		a, err := OpenTPM(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Raise(2); err != nil {
			t.Fatal(err)
		}
		x, base, key := a.rec.Counter, a.rec.Base, a.rec.Key
		secret := a.rec.auth(authNV)
		for _, tc := range []struct {
			name string
			do   func(c transport.TPM) error
			open bool // possible while the owner's auth value is empty
			ever bool // possible at all
		}{
			{"increment", func(c transport.TPM) error {
				_, err := tpm2.NVIncrement{AuthHandle: x.authorized(tpm2.PasswordAuth(nil)), NVIndex: x.named()}.Execute(c)
				return err
			}, false, false},
			{"increment as owner", func(c transport.TPM) error {
				_, err := tpm2.NVIncrement{AuthHandle: tpm2.TPMRHOwner, NVIndex: x.named()}.Execute(c)
				return err
			}, false, false},
			{"sign", func(c transport.TPM) error {
				_, err := tpm2.Sign{KeyHandle: key.authorized(tpm2.PasswordAuth(nil)), Digest: tpm2.TPM2BDigest{Buffer: make([]byte, 32)},
					Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull}}.Execute(c)
				return err
			}, false, false},
			{"write the base, with the secret", func(c transport.TPM) error {
				_, err := tpm2.NVWrite{AuthHandle: base.authorized(tpm2.PasswordAuth(secret)), NVIndex: base.named(), Data: tpm2.TPM2BMaxNVBuffer{Buffer: make([]byte, baseSize)}}.Execute(c)
				return err
			}, false, false},
			{"undefine the counter", func(c transport.TPM) error { return undefine(c, x.Handle) }, true, false},
			{"evict the key", func(c transport.TPM) error { return evict(c, key.Handle) }, true, false},
			{"clear", func(c transport.TPM) error {
				_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}.Execute(c)
				return err
			}, true, false},
		} {
			behind(t, e, a, func(c transport.TPM) error {
				err := tc.do(c)
				if possible := tc.ever || tc.open && !own; possible != (err == nil) {
					t.Errorf("owner taken %v: %s: %v", own, tc.name, err)
				}
				return nil
			})
		}
		e0, err := a.Epoch()
		if own && (err != nil || e0 != 2) || !own && !errors.Is(err, ErrTampered) {
			t.Errorf("owner taken %v: epoch %d, %v", own, e0, err)
		}
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOwnerAuthOfAnOperator(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	behind(t, e, nil, func(c transport.TPM) error {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}, NewAuth: tpm2.TPM2BAuth{Buffer: []byte("operator")},
		}.Execute(c)
		return err
	})
	path := filepath.Join(dir, "owner-auth")
	for _, content := range []string{"", "wrong\n"} {
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := OpenTPM(t.Context(), e.options(dir)); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "owner-auth") {
			t.Fatalf("with %q: %v", content, err)
		}
	}
	if err := os.WriteFile(path, []byte("operator\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := openTPM(t, e, dir)
	// Needed for provisioning only.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := a.Raise(1); err != nil {
		t.Fatal(err)
	}
	e.cut(t)
	wantEpoch(t, a, 1)
}
