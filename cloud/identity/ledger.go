package identity

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/agent/wire"
)

// The kinds of refusal of a renewal.
var (
	ErrNotMember = errors.New("identity: no such device was enrolled here")
	ErrRevoked   = errors.New("identity: device is revoked")
	ErrOtherKey  = errors.New("identity: the key is not the device's")
)

const ledgerDir = "issued"

// entry is what is remembered of a device, in issued/{device}.json: the key it
// enrolled with, which no message of a broker can change, and all certificates
// that are still good, because revoking a device means all of them.
type entry struct {
	V       int      `json:"v"`
	Key     string   `json:"key"` // SHA-256 of the public key (SPKI), hexadecimal
	Revoked bool     `json:"revoked,omitempty"`
	Certs   [][]byte `json:"certs"` // DER, the newest last
}

// ledger calls fn with a device's entry, the zero entry if there is none, and
// stores it if fn says so; other processes wait meanwhile.
func (a *Authority) ledger(device string, fn func(e *entry) (store bool, err error)) (err error) {
	if !ValidDevice(device) {
		return fmt.Errorf("%w: device %q", ErrName, device)
	}
	dir := a.path(ledgerDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("identity: ledger: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("identity: ledger: %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("identity: ledger: %w", err)
	}
	e, err := a.entry(device)
	if err != nil {
		return err
	}
	store, err := fn(&e)
	if err != nil || !store {
		return err
	}
	e.V = wire.Version
	if err := writeFile(filepath.Join(dir, device+".json"), wire.Encode(e), 0o600); err != nil {
		return fmt.Errorf("identity: ledger: %w", err)
	}
	return nil
}

// entry reads without a lock: files are replaced as a whole.
func (a *Authority) entry(device string) (entry, error) {
	var e entry
	b, err := readFile(filepath.Join(a.path(ledgerDir), device+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return e, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &e)
	}
	if err != nil {
		return e, fmt.Errorf("identity: ledger of device %q: %w", device, err)
	}
	return e, nil
}

// live are the certificates that have not expired; damaged ones are dropped.
func (e *entry) live(now time.Time) []*x509.Certificate {
	var out []*x509.Certificate
	for _, der := range e.Certs {
		if c, err := x509.ParseCertificate(der); err == nil && c.NotAfter.After(now) {
			out = append(out, c)
		}
	}
	return out
}

// add records a certificate and forgets those that have expired.
func (e *entry) add(c *x509.Certificate, now time.Time) {
	live := e.live(now)
	e.Certs = nil
	for _, old := range live {
		e.Certs = append(e.Certs, old.Raw)
	}
	e.Certs = append(e.Certs, c.Raw)
}

func keyDigest(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// RevokeDevice revokes every certificate of a device that is still good but the
// one with the serial number except; "" means all, and that it gets no other
// before it is enrolled anew.
func (a *Authority) RevokeDevice(device, except string) error {
	var serials []string
	err := a.ledger(device, func(e *entry) (bool, error) {
		for _, c := range e.live(a.now()) {
			if s := Serial(c); s != except {
				serials = append(serials, s)
			}
		}
		if except == "" {
			e.Revoked = true
		}
		return except == "" && e.Key != "", nil
	})
	if err != nil {
		return err
	}
	for _, s := range serials {
		if err := a.Revoke(s); err != nil {
			return err
		}
	}
	return nil
}

// pinned says whether a certificate is for the name and the key of a member:
// what holds when the authority that signed it does not any more.
func (a *Authority) pinned(c *x509.Certificate) bool {
	name := c.Subject.CommonName
	if !ValidDevice(name) {
		return false
	}
	e, err := a.entry(name)
	return err == nil && !e.Revoked && e.Key != "" && e.Key == keyDigest(c.RawSubjectPublicKeyInfo)
}

// Renew makes a member's next certificate from a request for its name, signed
// with the key it enrolled with. The former one stays good: it is what the
// device has until the answer has arrived. Asked again soon after, Renew gives
// the same certificate again, so that a lost answer costs nothing. ErrName,
// ErrCSR, ErrNotMember, ErrOtherKey, ErrRevoked.
func (a *Authority) Renew(device string, csr []byte) (Issued, error) {
	r, err := checkCSR(device, csr)
	if err != nil {
		return Issued{}, err
	}
	m, err := a.current()
	if err != nil {
		return Issued{}, err
	}
	var out Issued
	err = a.ledger(device, func(e *entry) (bool, error) {
		switch {
		case e.Key == "":
			return false, fmt.Errorf("%w: %q", ErrNotMember, device)
		case e.Revoked:
			return false, fmt.Errorf("%w: %q", ErrRevoked, device)
		case e.Key != keyDigest(r.RawSubjectPublicKeyInfo):
			return false, fmt.Errorf("%w: %q", ErrOtherKey, device)
		}
		now := a.now()
		if last := e.last(); last != nil && !a.dueAt(last, m, now, freshShare) {
			out = m.issued(device, last)
			return false, nil
		}
		c, err := m.issue(device, r.PublicKey, a, now)
		if err != nil {
			return false, err
		}
		e.add(c, now)
		out = m.issued(device, c)
		return true, nil
	})
	return out, err
}

// last is the certificate that was made last, nil if it does not parse.
func (e *entry) last() *x509.Certificate {
	if len(e.Certs) == 0 {
		return nil
	}
	c, err := x509.ParseCertificate(e.Certs[len(e.Certs)-1])
	if err != nil {
		return nil
	}
	return c
}

const (
	// dueShare is the share of its life after which a certificate is renewed.
	dueShare = 2.0 / 3
	// freshShare is how long Renew gives the same one again.
	freshShare = 1.0 / 6
)

// dueAt says whether a certificate has lived its share, or is not of the
// present hub CA.
func (a *Authority) dueAt(c *x509.Certificate, m *material, now time.Time, share float64) bool {
	life := time.Duration(float64(c.NotAfter.Sub(c.NotBefore)) * share)
	return !now.Before(c.NotBefore.Add(life)) || !bytes.Equal(c.AuthorityKeyId, m.hubCA.SubjectKeyId)
}

// Due says whether a member should renew its certificate now, by the hub's
// clock: two thirds of its time are over, or the hub CA was replaced.
func (a *Authority) Due(device string) (bool, error) {
	m, err := a.current()
	if err != nil {
		return false, err
	}
	e, err := a.entry(device)
	if err != nil || e.Key == "" || e.Revoked {
		return false, err
	}
	last := e.last()
	return last == nil || a.dueAt(last, m, a.now(), dueShare), nil
}

// Serials are the serial numbers of a device's certificates that are still
// good, the newest last.
func (a *Authority) Serials(device string) ([]string, error) {
	e, err := a.entry(device)
	var out []string
	for _, c := range e.live(a.now()) {
		out = append(out, Serial(c))
	}
	return out, err
}

// enrol records a new member, or one that comes back with another key, and
// makes its certificate.
func (a *Authority) enrol(device string, spki []byte, pub crypto.PublicKey) (out Issued, err error) {
	m, err := a.current()
	if err != nil {
		return out, err
	}
	err = a.ledger(device, func(e *entry) (bool, error) {
		now := a.now()
		c, err := m.issue(device, pub, a, now)
		if err != nil {
			return false, err
		}
		e.add(c, now)
		e.Key, e.Revoked = keyDigest(spki), false
		out = m.issued(device, c)
		return true, nil
	})
	return out, err
}

// issued puts a certificate together with its chain.
func (m *material) issued(device string, c *x509.Certificate) Issued {
	sum := sha256.Sum256(c.Raw)
	return Issued{
		Device: device, Chain: slices.Concat([][]byte{c.Raw}, [][]byte{m.hubCA.Raw}), Serial: Serial(c),
		Fingerprint: hex.EncodeToString(sum[:]), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
	}
}
