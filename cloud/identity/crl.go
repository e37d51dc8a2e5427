package identity

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/sys/unix"
)

const crlFile = "crl.pem"

// crl is what was last read from crl.pem.
type crl struct {
	stamp   stamp
	root    []byte // DER, the root's list as it is: the root key is offline
	hub     []x509.RevocationListEntry
	until   time.Time // end of the hub CA's list
	revoked map[string]bool
}

type stamp struct {
	mod  time.Time
	size int64
	node uint64
}

func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return stamp{}, fmt.Errorf("%s: %w", path, err)
	}
	return stamp{mod: time.Unix(st.Mtim.Unix()), size: st.Size, node: st.Ino}, nil
}

// Revoked says whether the certificate with this serial number (see Serial) is
// revoked. When the list cannot be read, what was last read counts.
func (a *Authority) Revoked(serial string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	_ = a.refresh() // the old list stands; Open and Revoke report such errors
	return a.list.revoked[serial]
}

// Revoke puts a device certificate on the list. Revoking twice is no error.
// Sessions that are open must be ended by the broker.
func (a *Authority) Revoke(serial string) error {
	n, ok := new(big.Int).SetString(serial, 16)
	if !ok || n.Sign() <= 0 || n.BitLen() > 160 {
		return fmt.Errorf("%w: serial number %q", ErrName, serial)
	}
	if n.Cmp(a.must().hubCA.SerialNumber) == 0 {
		return fmt.Errorf("identity: revoke %s: that is the hub CA: %w", serial, ErrOffline)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.update(func(l []x509.RevocationListEntry) []x509.RevocationListEntry {
		for _, e := range l {
			if e.SerialNumber.Cmp(n) == 0 {
				return l
			}
		}
		return append(l, x509.RevocationListEntry{SerialNumber: n, RevocationTime: a.now().UTC()})
	})
}

// renewList signs the list anew when half of its time is over: OpenSSL refuses
// every client once a list has lapsed. Callers hold the mutex.
func (a *Authority) renewList() error {
	if a.list.until.Sub(a.now()) > crlValidity/2 {
		return nil
	}
	return a.update(func(l []x509.RevocationListEntry) []x509.RevocationListEntry { return l })
}

// update changes the list under a lock that other processes respect. Callers
// hold the mutex.
func (a *Authority) update(change func([]x509.RevocationListEntry) []x509.RevocationListEntry) error {
	return a.exclusive(func() error {
		m, err := a.reload()
		if err != nil {
			return err
		}
		if err := a.refresh(); err != nil {
			return err
		}
		entries := change(a.list.hub)
		der, err := signList(m.hubCA, m.hubKey, entries, a.now())
		if err != nil {
			return fmt.Errorf("identity: sign revocation list: %w", err)
		}
		lists := [][]byte{a.list.root, der}
		if m.formerKey != nil {
			// A device may still show a certificate of the former hub CA.
			if der, err = signList(m.former, m.formerKey, entries, a.now()); err != nil {
				return fmt.Errorf("identity: sign revocation list: %w", err)
			}
			lists = append(lists, der)
		}
		if err := writeFile(a.path(crlFile), encodeLists(lists...), 0o644); err != nil {
			return fmt.Errorf("identity: write revocation list: %w", err)
		}
		return a.refresh()
	})
}

// refresh reads the list again when the file has changed. Callers hold the
// mutex.
func (a *Authority) refresh() error {
	st, err := stampOf(a.path(crlFile))
	if err != nil {
		return fmt.Errorf("identity: revocation list: %w", err)
	}
	if st == a.list.stamp {
		return nil
	}
	b, err := readFile(a.path(crlFile))
	if err != nil {
		return fmt.Errorf("identity: revocation list: %w", err)
	}
	m, err := a.reload()
	if err != nil {
		return fmt.Errorf("identity: revocation list: %w", err)
	}
	l, err := parseLists(b, a.root, m.hubCA, m.former)
	if err != nil {
		return fmt.Errorf("identity: revocation list: %w", err)
	}
	l.stamp = st
	a.list = l
	return nil
}

// parseLists reads the lists of the root and the hub CA, and skips that of a
// former hub CA, which may be nil: it says the same as the hub CA's.
func parseLists(b []byte, root, hub, former *x509.Certificate) (crl, error) {
	l := crl{revoked: map[string]bool{}}
	for {
		var p *pem.Block
		if p, b = pem.Decode(b); p == nil {
			break
		}
		list, err := x509.ParseRevocationList(p.Bytes)
		if err != nil {
			return crl{}, err
		}
		switch {
		case list.CheckSignatureFrom(root) == nil:
			l.root = p.Bytes
		case list.CheckSignatureFrom(hub) == nil:
			l.hub, l.until = list.RevokedCertificateEntries, list.NextUpdate
		case former != nil && list.CheckSignatureFrom(former) == nil:
		default:
			return crl{}, errors.New("signed by a stranger")
		}
		for _, e := range list.RevokedCertificateEntries {
			l.revoked[e.SerialNumber.Text(16)] = true
		}
	}
	if l.root == nil || l.until.IsZero() {
		return crl{}, errors.New("a list is missing: root and hub CA each have one")
	}
	return l, nil
}

func signList(issuer *x509.Certificate, key *ecdsa.PrivateKey, entries []x509.RevocationListEntry, now time.Time) ([]byte, error) {
	until := now.Add(crlValidity)
	if issuer.MaxPathLen > 0 { // the root's: offline, so it must last
		until = issuer.NotAfter
	}
	return x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number:                    big.NewInt(now.UnixNano()),
		ThisUpdate:                after(now.Add(-backdate), issuer.NotBefore),
		NextUpdate:                until,
		RevokedCertificateEntries: entries,
	}, issuer, key)
}

func encodeLists(lists ...[]byte) []byte {
	var out []byte
	for _, der := range lists {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})...)
	}
	return out
}
