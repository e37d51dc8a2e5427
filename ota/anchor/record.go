package anchor

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"
)

// Stages of a record. Provisioning is written before the first command that
// changes the TPM, ready after the last.
const (
	stageProvisioning = "provisioning"
	stageReady        = "ready"
)

var errNoRecord = errors.New("anchor: no record of a TPM")

var recordCopies = [2]string{"tpm.a", "tpm.b"}

// record is what the device knows about its things in the TPM.
type record struct {
	V         int    `json:"v"`
	Stage     string `json:"stage"`
	Device    string `json:"device"`
	Secret    []byte `json:"secret"` // 32 bytes; the auth values come from it
	Tag       []byte `json:"tag"`    // 32 bytes: our things' authPolicy; no policy satisfies it
	TakeOwner bool   `json:"take_owner,omitempty"`
	Floor     uint64 `json:"floor,omitempty"` // epoch taken over from a file anchor

	Counter thing  `json:"counter"`
	Base    thing  `json:"base"`
	Key     thing  `json:"key"`
	Zero    uint64 `json:"zero"`             // what the counter shows at epoch 0
	Public  []byte `json:"public,omitempty"` // the key's, PKIX DER
}

// thing is an index or a key in the TPM.
type thing struct {
	Handle tpm2.TPMHandle `json:"handle"`
	Name   []byte         `json:"name,omitempty"` // TPM name; known once it is ready
}

type envelope struct {
	Record json.RawMessage `json:"record"`
	Sum    string          `json:"sha256"` // of the record, compact
}

func newRecord(o Options, floor uint64) (*record, error) {
	r := &record{
		V: 1, Stage: stageProvisioning, Device: o.Device, TakeOwner: o.TakeOwner, Floor: floor,
		Secret: make([]byte, 32), Tag: make([]byte, 32),
		Counter: thing{Handle: tpm2.TPMHandle(o.NVIndexBase)},
		Base:    thing{Handle: tpm2.TPMHandle(o.NVIndexBase + 1)},
		Key:     thing{Handle: tpm2.TPMHandle(o.KeyHandle)},
	}
	for _, b := range [][]byte{r.Secret, r.Tag} {
		if _, err := rand.Read(b); err != nil {
			return nil, fmt.Errorf("anchor: random bytes: %w", err)
		}
	}
	return r, nil
}

// Uses of the secret.
const (
	authNV      = "nv index"
	authKey     = "device key"
	authOwner   = "owner hierarchy"
	authLockout = "lockout"
)

// auth is the auth value for one use: 128 bits as 32 hex digits. No byte of it
// may be zero: go-tpm v0.9.8 cuts an auth value at its first zero byte when it
// keys an HMAC, where TPMs drop trailing ones alone.
func (r *record) auth(use string) []byte {
	b, err := hkdf.Key(sha256.New, r.Secret, nil, "drover anchor: "+use, 16)
	if err != nil {
		panic("internal error: anchor: " + err.Error())
	}
	return []byte(hex.EncodeToString(b))
}

// public is the device key.
func (r *record) public() (*ecdsa.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(r.Public)
	if err != nil {
		return nil, err
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, errors.New("not ECDSA P-256")
	}
	return pub, nil
}

// save writes both copies; the first one counts.
func (r *record) save(dir string) error {
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	sum := sha256.Sum256(body)
	b, err := json.Marshal(envelope{body, hex.EncodeToString(sum[:])})
	if err != nil {
		return fmt.Errorf("anchor: %w", err)
	}
	for _, name := range recordCopies {
		if err := writeFile(filepath.Join(dir, name), append(b, '\n')); err != nil {
			return fmt.Errorf("anchor: write record: %w", err)
		}
	}
	return nil
}

// loadRecord reads the first copy that is whole. errNoRecord when there never
// was one, ErrTampered when none is whole.
func loadRecord(dir string) (*record, error) {
	missing := 0
	for _, name := range recordCopies {
		b, err := readFile(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing++
			continue
		case err != nil:
			return nil, fmt.Errorf("anchor: %w", err)
		}
		if r, err := parseRecord(b); err == nil {
			return r, nil
		}
	}
	if missing == len(recordCopies) {
		return nil, errNoRecord
	}
	return nil, fmt.Errorf("%w: both copies of the TPM's record in %s are damaged", ErrTampered, dir)
}

func parseRecord(b []byte) (*record, error) {
	var e envelope
	if err := strict(b, &e); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(e.Record); e.Sum != hex.EncodeToString(sum[:]) {
		return nil, errors.New("wrong checksum")
	}
	r := new(record)
	if err := strict(e.Record, r); err != nil {
		return nil, err
	}
	if r.V != 1 || len(r.Secret) != 32 || len(r.Tag) != 32 {
		return nil, errors.New("not a record of version 1")
	}
	switch r.Stage {
	case stageProvisioning:
		return r, nil
	case stageReady:
		_, err := r.public()
		return r, err
	}
	return nil, fmt.Errorf("stage %q", r.Stage)
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

// ownerAuth reads the auth value that an operator put beside the record. A
// line break at its end is not part of it. Nil when there is none.
func ownerAuth(dir string) ([]byte, error) {
	b, err := readFile(filepath.Join(dir, "owner-auth"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("anchor: %w", err)
	}
	b = bytes.TrimRight(b, "\r\n")
	if bytes.IndexByte(b, 0) >= 0 {
		return nil, errors.New("anchor: owner-auth has a zero byte in it, which is not supported") // see auth
	}
	return b, nil
}
