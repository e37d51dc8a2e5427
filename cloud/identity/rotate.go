package identity

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// retirement is the file retire.json: the root's list that revokes the former
// hub CA, to be published when its grace is over. It is signed beforehand,
// because the root key is not here then.
type retirement struct {
	V     int       `json:"v"`
	Until time.Time `json:"until"`
	Root  []byte    `json:"root"` // DER
}

const retireFile = "retire.json"

// Rotation says what RotateHubCA did.
type Rotation struct {
	Former  string    `json:"former"`  // serial number of the former hub CA
	Serial  string    `json:"serial"`  // and of the new one
	Revoked time.Time `json:"revoked"` // when the former one is, or was, revoked
}

// Summary is how the authority stands, for people.
type Summary struct {
	RootEnds    time.Time  `json:"root_ends"`
	HubCA       string     `json:"hub_ca"` // serial number
	HubCAEnds   time.Time  `json:"hub_ca_ends"`
	ServerEnds  time.Time  `json:"server_ends"`
	FormerUntil *time.Time `json:"former_until,omitempty"` // a former hub CA is revoked then
	Revoked     int        `json:"revoked"`
}

// Summary says how the authority stands.
func (a *Authority) Summary() (Summary, error) {
	m, err := a.current()
	if err != nil {
		return Summary{}, err
	}
	s := Summary{RootEnds: a.root.NotAfter, HubCA: Serial(m.hubCA), HubCAEnds: m.hubCA.NotAfter, ServerEnds: m.server.Leaf.NotAfter}
	a.mu.Lock()
	s.Revoked = len(a.list.revoked)
	a.mu.Unlock()
	b, err := readFile(a.path(retireFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	var r retirement
	if err == nil {
		err = wire.Decode(b, maxFile, &r)
	}
	s.FormerUntil = &r.Until
	return s, err
}

// ErrGrace: the grace of a former hub CA is not over yet.
var ErrGrace = errors.New("identity: the hub CA was replaced not long ago, and the former one is not revoked yet")

// RotateHubCA replaces the hub CA: a new key, a certificate of the root, new
// certificates of the hub, with their keys as they are. rootKey is the PEM of
// the root key. The former hub CA is revoked after the grace.
//
// Without grace, devices whose certificate is of the former hub CA are known by
// the key they enrolled with: the embedded broker lets them in, and nobody else
// who holds a certificate of that CA, so that a stolen hub CA is worth nothing
// at once. Other brokers know nothing of that: they need a grace in which
// devices get new certificates. Devices trust the root alone and notice
// nothing but a new session.
func (a *Authority) RotateHubCA(rootKey []byte, grace time.Duration) (out Rotation, err error) {
	key, err := decodeKey(rootKey)
	if err != nil {
		return out, fmt.Errorf("identity: root key: %w", err)
	}
	if !key.PublicKey.Equal(a.root.PublicKey) {
		return out, fmt.Errorf("identity: root key: it is not that of this fleet's root: %w", ErrOffline)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	err = a.exclusive(func() error {
		if _, err := os.Stat(a.path(retireFile)); err == nil {
			if err := a.retire(); err != nil {
				return err
			}
		}
		if _, err := os.Stat(a.path(retireFile)); err == nil {
			return ErrGrace
		}
		m, err := a.reload()
		if err != nil {
			return err
		}
		if err := a.refresh(); err != nil {
			return err
		}
		files, rot, err := a.nextHubCA(m, key, grace)
		if err != nil {
			return err
		}
		out = rot
		return a.writeSet(files)
	})
	if err != nil {
		return out, fmt.Errorf("identity: replace the hub CA: %w", err)
	}
	if grace <= 0 {
		if err := a.dropFormer(); err != nil {
			return out, err
		}
	}
	if _, err := a.reload(); err != nil {
		return out, err
	}
	return out, a.refresh()
}

// nextHubCA makes all files of a change of the hub CA.
func (a *Authority) nextHubCA(m *material, rootKey *ecdsa.PrivateKey, grace time.Duration) (files map[string][]byte, r Rotation, err error) {
	now := a.now()
	key, err := newKey()
	if err != nil {
		return nil, r, err
	}
	cert, err := sign(hubCATemplate(a.fleet, now, a.root), a.root, key.Public(), rootKey)
	if err != nil {
		return nil, r, err
	}
	r = Rotation{Former: Serial(m.hubCA), Serial: Serial(cert), Revoked: now.Add(max(0, grace))}
	before, err := x509.ParseRevocationList(a.list.root)
	if err != nil {
		return nil, r, err
	}
	entries := append(before.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: m.hubCA.SerialNumber, RevocationTime: r.Revoked.UTC()})
	rootList, err := signList(a.root, rootKey, entries, now)
	if err != nil {
		return nil, r, err
	}
	hubList, err := signList(cert, key, a.list.hub, now)
	if err != nil {
		return nil, r, err
	}
	lists := [][]byte{rootList, hubList}
	files = map[string][]byte{"former-ca.crt": encodeCerts(m.hubCA)}
	if grace > 0 {
		formerList, err := signList(m.hubCA, m.hubKey, a.list.hub, now)
		if err != nil {
			return nil, r, err
		}
		lists = [][]byte{a.list.root, hubList, formerList}
		if files["former-ca.key"], err = encodeKey(m.hubKey); err != nil {
			return nil, r, err
		}
		files[retireFile] = wire.Encode(retirement{V: wire.Version, Until: r.Revoked, Root: rootList})
	}
	files[crlFile] = encodeLists(lists...)
	if files["hub-ca.key"], err = encodeKey(key); err != nil {
		return nil, r, err
	}
	files["hub-ca.crt"] = encodeCerts(cert)
	for _, end := range []string{"server", "client"} {
		c, _, err := endCertificate(a.dir, end, about{Fleet: a.fleet, Names: a.names}, cert, key, now)
		if err != nil {
			return nil, r, err
		}
		files[end+".crt"] = encodeCerts(c, cert)
	}
	return files, r, nil
}

// retire revokes the former hub CA when its grace is over. Callers hold mutex
// and lock.
func (a *Authority) retire() error {
	b, err := readFile(a.path(retireFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var r retirement
	if err == nil {
		err = wire.Decode(b, maxFile, &r)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", retireFile, err)
	}
	if a.now().Before(r.Until) {
		return nil
	}
	if err := a.refresh(); err != nil {
		return err
	}
	m, err := a.reload()
	if err != nil {
		return err
	}
	hubList, err := signList(m.hubCA, m.hubKey, a.list.hub, a.now())
	if err != nil {
		return err
	}
	// The former CA's own list goes: OpenSSL takes no certificate of an
	// authority whose list is missing.
	if err := writeFile(a.path(crlFile), encodeLists(r.Root, hubList), 0o644); err != nil {
		return err
	}
	return a.dropFormer()
}

// dropFormer removes the key of a former hub CA that is revoked, and what
// waited for that.
func (a *Authority) dropFormer() error {
	var errs []error
	for _, name := range []string{"former-ca.key", retireFile} {
		if err := os.Remove(a.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	a.mat = nil // the stamps do not show it
	return errors.Join(errs...)
}
