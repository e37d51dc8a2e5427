package anchor

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"

	"github.com/google/go-tpm/tpm2"
)

// keyTemplate is a P-256 key that signs SHA-256 digests and never leaves the
// TPM. Wrong auth values do not count against the TPM's lockout: 32 random
// bytes are not guessed.
func (r *record) keyTemplate() tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgECC, NameAlg: tpm2.TPMAlgSHA256, AuthPolicy: tpm2.TPM2BDigest{Buffer: r.Tag},
		ObjectAttributes: tpm2.TPMAObject{
			FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true, NoDA: true, SignEncrypt: true,
		},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{
				Scheme:  tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256}),
			},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// makeKey lets the TPM make the key and keep it at its handle.
func (p *provisioning) makeKey() error {
	created, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: p.srk, Name: p.srkName, Auth: p.secret(nil)},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: p.rec.auth(authKey)}, Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{})}},
		InPublic:     tpm2.New2B(p.rec.keyTemplate()),
	}.Execute(p.conn)
	if err != nil {
		return err
	}
	loaded, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: p.srk, Name: p.srkName, Auth: session(nil)},
		InPrivate:    created.OutPrivate, InPublic: created.OutPublic,
	}.Execute(p.conn)
	if err != nil {
		return err
	}
	_, err = tpm2.EvictControl{
		Auth:         p.ownerHandle(session(p.owner)),
		ObjectHandle: tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name}, PersistentHandle: p.rec.Key.Handle,
	}.Execute(p.conn)
	return errors.Join(err, flush(p.conn, loaded.ObjectHandle))
}

// ErrDigest says that a digest is too short for this key (SHA-1, MD5).
var ErrDigest = errors.New("anchor: the device key signs digests of at least 32 bytes")

// signer is the device key as crypto wants it. It is safe for concurrent use.
type signer struct {
	t   *TPM
	pub *ecdsa.PublicKey
}

// Public implements crypto.Signer.
func (s *signer) Public() crypto.PublicKey { return s.pub }

// Sign gives an ASN.1 signature of a digest made by opts.HashFunc. The TPM's
// own randomness counts, not the reader. ErrDigest, ErrTampered,
// ErrUnavailable.
func (s *signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if h := opts.HashFunc(); h == 0 || len(digest) != h.Size() || len(digest) < 32 {
		return nil, fmt.Errorf("%w: %d bytes", ErrDigest, len(digest))
	}
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	var sig []byte
	err := s.t.do(context.Background(), "sign", func() error {
		var err error
		sig, err = s.sign(digest)
		return err
	})
	return sig, err
}

// sign signs the leftmost 32 bytes: ECDSA on P-256 uses no more of a longer
// digest (FIPS 186-5, 6.4.1), and so the TPM need not know its hash.
func (s *signer) sign(digest []byte) ([]byte, error) {
	t := s.t
	rsp, err := tpm2.Sign{
		KeyHandle: t.rec.Key.authorized(session(t.rec.auth(authKey))),
		Digest:    tpm2.TPM2BDigest{Buffer: digest[:32]},
		InScheme: tpm2.TPMTSigScheme{
			Scheme:  tpm2.TPMAlgECDSA,
			Details: tpm2.NewTPMUSigScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSchemeHash{HashAlg: tpm2.TPMAlgSHA256}),
		},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(t.conn)
	if err != nil {
		return nil, t.explainKey(err)
	}
	ec, err := rsp.Signature.Signature.ECDSA()
	if err != nil {
		return nil, err
	}
	sig, err := asn1.Marshal(struct{ R, S *big.Int }{
		new(big.Int).SetBytes(ec.SignatureR.Buffer), new(big.Int).SetBytes(ec.SignatureS.Buffer),
	})
	if err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(s.pub, digest, sig) {
		return nil, fmt.Errorf("%w: the TPM's signature is not the device key's", ErrTampered)
	}
	return sig, nil
}

// explainKey finds out why the TPM refused a command on the key.
func (t *TPM) explainKey(err error) error {
	var rc tpm2.TPMRC
	if stale(err) || !errors.As(err, &rc) || rc.IsWarning() {
		return err
	}
	x := t.rec.Key
	pub, name, e := t.keyPublic(x.Handle)
	switch {
	case e != nil:
		return errors.Join(err, e)
	case pub == nil:
		return fmt.Errorf("%w: the device key 0x%08x is gone", ErrTampered, uint32(x.Handle))
	case !bytes.Equal(name, x.Name), refusesAuth(err):
		return fmt.Errorf("%w: the key 0x%08x is not the one this device made", ErrTampered, uint32(x.Handle))
	}
	return err
}
