package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// material are the keys and certificates of the hub. Another process may
// replace them (RotateHubCA), and they are renewed while the hub runs; a
// material never changes once it was read.
type material struct {
	hubCA  *x509.Certificate
	hubKey *ecdsa.PrivateKey
	server tls.Certificate
	client tls.Certificate
	stamps [3]stamp
	// former is the hub CA that was replaced; formerKey is there as long as it
	// has not been revoked.
	former    *x509.Certificate
	formerKey *ecdsa.PrivateKey
}

var materialFiles = [3]string{"hub-ca.crt", "server.crt", "client.crt"}

func (a *Authority) stamps() (s [3]stamp, err error) {
	for i, name := range materialFiles {
		if s[i], err = stampOf(a.path(name)); err != nil {
			return s, err
		}
	}
	return s, nil
}

// current is the material as it is now. When it cannot be read, what was last
// read counts: the other process may be in the middle of it.
func (a *Authority) current() (*material, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reload()
}

// reload is current for callers that hold the mutex.
func (a *Authority) reload() (*material, error) {
	s, err := a.stamps()
	if err == nil && a.mat != nil && s == a.mat.stamps {
		return a.mat, nil
	}
	m, readErr := a.read()
	if err = errors.Join(err, readErr); err != nil {
		if a.mat != nil {
			return a.mat, nil
		}
		return nil, err
	}
	a.mat = m
	return m, nil
}

// read reads the material. Stamps come first: what changes in between is seen
// by the next question.
func (a *Authority) read() (m *material, err error) {
	m = new(material)
	if m.stamps, err = a.stamps(); err != nil {
		return nil, err
	}
	if m.hubCA, m.hubKey, err = readPair(a.dir, "hub-ca"); err != nil {
		return nil, err
	}
	if err := m.hubCA.CheckSignatureFrom(a.root); err != nil {
		return nil, fmt.Errorf("hub-ca.crt is not of this root: %w", err)
	}
	if m.server, err = readTLS(a.dir, "server"); err != nil {
		return nil, err
	}
	if m.client, err = readTLS(a.dir, "client"); err != nil {
		return nil, err
	}
	certs, err := readCerts(a.path("former-ca.crt"))
	if err == nil {
		m.former = certs[0]
		_, m.formerKey, err = readPair(a.dir, "former-ca")
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return m, err
}

// issue signs a device's certificate.
func (m *material) issue(device string, pub crypto.PublicKey, a *Authority, now time.Time) (*x509.Certificate, error) {
	c, err := sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: device, Organization: []string{a.fleet}},
		NotBefore:   after(now.Add(-backdate), m.hubCA.NotBefore),
		NotAfter:    now.Add(a.validity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, m.hubCA, pub, m.hubKey)
	if err != nil {
		return nil, fmt.Errorf("identity: certificate of device %q: %w", device, err)
	}
	return c, nil
}

// exclusive runs fn while no other process changes files of the folder, and
// first finishes what one may have left half done. Callers hold the mutex.
func (a *Authority) exclusive(fn func() error) (err error) {
	f, err := os.OpenFile(a.path("crl.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("identity: lock: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }() // gives the lock back
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("identity: lock: %w", err)
	}
	if err := a.applyNext(); err != nil {
		return fmt.Errorf("identity: finish the change of the hub CA: %w", err)
	}
	return fn()
}

// Maintain renews what the hub renews by itself when its time has come: its
// server and client certificates, with the same keys, and the revocation list;
// and it ends the grace of a former hub CA. A hub calls it now and then.
func (a *Authority) Maintain() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.exclusive(func() error {
		hubCA, hubKey, err := readPair(a.dir, "hub-ca")
		if err != nil {
			return err
		}
		if err := hubCA.CheckSignatureFrom(a.root); err != nil {
			return fmt.Errorf("hub-ca.crt is not of this root: %w", err)
		}
		if err := renewServer(a.dir, about{Fleet: a.fleet, Names: a.names}, hubCA, hubKey, a.now); err != nil {
			return err
		}
		if _, err = a.reload(); err != nil {
			return err
		}
		return a.retire()
	})
	if err != nil {
		return fmt.Errorf("identity: maintain: %w", err)
	}
	if err := a.refresh(); err != nil {
		return err
	}
	return a.renewList()
}

// writeSet stages files in next/ and then moves them to their places; what a
// power cut interrupts, applyNext finishes or forgets.
func (a *Authority) writeSet(files map[string][]byte) error {
	next := a.path("next")
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	if err := os.Mkdir(next, 0o700); err != nil {
		return err
	}
	for name, b := range files {
		mode := os.FileMode(0o644)
		if filepath.Ext(name) == ".key" {
			mode = 0o600
		}
		if err := writeFile(filepath.Join(next, name), b, mode); err != nil {
			return err
		}
	}
	if err := writeFile(a.path("next.ready"), nil, 0o600); err != nil {
		return err
	}
	return a.applyNext()
}

// applyNext moves a staged set to its place if it is whole.
func (a *Authority) applyNext() error {
	if _, err := os.Stat(a.path("next.ready")); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	files, err := os.ReadDir(a.path("next"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range files {
		if err := os.Rename(filepath.Join(a.path("next"), f.Name()), a.path(f.Name())); err != nil {
			return err
		}
	}
	d, err := os.Open(a.dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(a.path("next")), os.Remove(a.path("next.ready")))
}
