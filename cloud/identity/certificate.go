package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// Serial is a certificate's serial number as it stands in the registry and on
// the command line: lower-case hexadecimal.
func Serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

// Pin is the SHA-256, hexadecimal, of the server certificate's public key
// (SPKI). It outlives renewals of the certificate.
func (a *Authority) Pin() string {
	sum := sha256.Sum256(a.must().server.Leaf.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// Issued is a device certificate that was made.
type Issued struct {
	Device      string
	Chain       [][]byte // DER: the device's certificate, then the hub CA
	Serial      string
	Fingerprint string // SHA-256 of the certificate, hexadecimal
	NotBefore   time.Time
	NotAfter    time.Time
}

// IssueDevice makes a certificate for a new device, or for one that takes the
// name of another, from its certificate request (DER): signed, ECDSA P-256,
// common name = device. From then on the name belongs to that key. ErrName,
// ErrCSR.
func (a *Authority) IssueDevice(device string, csr []byte) (Issued, error) {
	r, err := checkCSR(device, csr)
	if err != nil {
		return Issued{}, err
	}
	return a.enrol(device, r.RawSubjectPublicKeyInfo, r.PublicKey)
}

// ValidDevice says whether a device may have this name.
func ValidDevice(name string) bool { return wire.ValidName(name) && name != HubName }

func checkCSR(device string, der []byte) (*x509.CertificateRequest, error) {
	if !ValidDevice(device) {
		return nil, fmt.Errorf("%w: device %q: 1 to 63 of a-z, 0-9 and hyphen, not %q", ErrName, device, HubName)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCSR, err)
	}
	if err := r.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrCSR, err)
	}
	key, ok := r.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: the key must be ECDSA P-256", ErrCSR)
	}
	if r.Subject.CommonName != device {
		return nil, fmt.Errorf("%w: common name %q, device %q", ErrCSR, r.Subject.CommonName, device)
	}
	return r, nil
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// sign makes a certificate; a nil parent means self-signed.
func sign(t, parent *x509.Certificate, pub crypto.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, always of the same length
	t.SerialNumber = new(big.Int).SetBytes(serial)
	t.BasicConstraintsValid = true
	if parent == nil {
		parent = t
	}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func rootTemplate(fleet string, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: "drover root " + fleet, Organization: []string{fleet}},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(rootValidity),
		IsCA: true, MaxPathLen: 1,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

func hubCATemplate(fleet string, now time.Time, root *x509.Certificate) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: "drover hub CA " + fleet, Organization: []string{fleet}},
		NotBefore: after(now.Add(-backdate), root.NotBefore), NotAfter: now.Add(hubCAValidity),
		IsCA: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// renewServer makes or renews the hub's two end certificates where they are
// missing, near their end, or not of the present hub CA.
func renewServer(dir string, a about, hub *x509.Certificate, hubKey *ecdsa.PrivateKey, clock func() time.Time) error {
	now := clock()
	for _, name := range []string{"server", "client"} {
		old, _, err := readPair(dir, name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && old.NotAfter.Sub(now) > renewBefore && old.CheckSignatureFrom(hub) == nil {
			continue
		}
		c, key, err := endCertificate(dir, name, a, hub, hubKey, now)
		if err != nil {
			return err
		}
		if err := writePair(dir, name, key, c, hub); err != nil {
			return err
		}
	}
	return nil
}

// endCertificate makes a certificate of the hub, "server" or "client", for the
// key that is in dir, or a new one if there is none.
func endCertificate(dir, name string, a about, hub *x509.Certificate, hubKey *ecdsa.PrivateKey, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	_, key, err := readPair(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = newKey()
	}
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		Subject:   pkix.Name{CommonName: HubName, Organization: []string{a.Fleet}},
		NotBefore: after(now.Add(-backdate), hub.NotBefore), NotAfter: now.Add(serverValidity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if name == "server" {
		t.Subject.CommonName = "drover hub " + a.Fleet
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		addHosts(t, a.Names)
	}
	c, err := sign(t, hub, key.Public(), hubKey)
	return c, key, err
}

func addHosts(t *x509.Certificate, names []string) {
	for _, n := range append([]string{"localhost", "127.0.0.1", "::1"}, names...) {
		if ip := net.ParseIP(n); ip != nil {
			if !slices.ContainsFunc(t.IPAddresses, ip.Equal) {
				t.IPAddresses = append(t.IPAddresses, ip)
			}
		} else if !slices.Contains(t.DNSNames, n) {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
}

func validHost(n string) bool {
	if net.ParseIP(n) != nil {
		return true
	}
	if len(n) < 1 || len(n) > 253 {
		return false
	}
	for _, label := range strings.Split(n, ".") {
		if !wire.ValidName(strings.ToLower(label)) {
			return false
		}
	}
	return true
}

func after(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// writePair writes the key first: a certificate never stands without its key.
func writePair(dir, name string, key *ecdsa.PrivateKey, chain ...*x509.Certificate) error {
	b, err := encodeKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, name+".key"), b, 0o600); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, name+".crt"), encodeCerts(chain...), 0o644)
}

func readPair(dir, name string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	b, err := readFile(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, nil, err
	}
	key, err := decodeKey(b)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.key: %w", name, err)
	}
	certs, err := readCerts(filepath.Join(dir, name+".crt"))
	if err != nil {
		return nil, nil, err
	}
	if !key.PublicKey.Equal(certs[0].PublicKey) {
		return nil, nil, fmt.Errorf("%s.crt and %s.key do not belong together", name, name)
	}
	return certs[0], key, nil
}

func readTLS(dir, name string) (tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		return c, err
	}
	c.Leaf, err = x509.ParseCertificate(c.Certificate[0])
	return c, err
}

func (a *Authority) path(name string) string { return filepath.Join(a.dir, name) }

// Files names the files that an external broker needs.
type Files struct{ CA, Certificate, Key, CRL string }

// Files returns their paths.
func (a *Authority) Files() Files {
	return Files{CA: a.path("ca.crt"), Certificate: a.path("server.crt"), Key: a.path("server.key"), CRL: a.path(crlFile)}
}
