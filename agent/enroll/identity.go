package enroll

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// ErrNotEnrolled is returned by Load where there is no identity.
var ErrNotEnrolled = errors.New("enroll: this device is not enrolled")

// Identity is what makes a device a member.
type Identity struct {
	V        int      `json:"v"`
	Device   string   `json:"device"`
	Fleet    string   `json:"fleet"`
	Broker   string   `json:"broker"`            // host:port
	Sources  []string `json:"sources,omitempty"` // https://host:port that serve blobs
	Chain    [][]byte `json:"chain"`             // DER: the device's certificate, then intermediates
	CA       [][]byte `json:"ca"`                // DER: roots
	RootJSON []byte   `json:"root"`              // root.json to begin with
}

const (
	identityFile = "identity.json"
	keyFile      = "device.key"
	maxIdentity  = 256 << 10
	maxCerts     = 5
)

// Load reads the identity in dir and checks it. ErrNotEnrolled.
func Load(dir string) (Identity, error) {
	var id Identity
	b, err := readFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return id, ErrNotEnrolled
	}
	if err == nil {
		err = wire.Decode(b, maxIdentity, &id)
	}
	if err == nil {
		err = id.check(nil)
	}
	if err != nil {
		return Identity{}, fmt.Errorf("enroll: load identity: %w", err)
	}
	return id, nil
}

// Save writes the identity into dir, durably. Enroll does so itself; Save is
// for renewals.
func (id Identity) Save(dir string) error {
	id.V = wire.Version
	b, err := json.MarshalIndent(id, "", " ")
	if err != nil {
		return fmt.Errorf("enroll: save identity: %w", err)
	}
	if err := writeFile(filepath.Join(dir, identityFile), append(b, '\n')); err != nil {
		return fmt.Errorf("enroll: save identity: %w", err)
	}
	return nil
}

// Certificate is what the device shows the broker. key must be the one the
// device enrolled with.
func (id Identity) Certificate(key crypto.Signer) (tls.Certificate, error) {
	if err := id.check(key.Public()); err != nil {
		return tls.Certificate{}, fmt.Errorf("enroll: %w", err)
	}
	leaf, err := x509.ParseCertificate(id.Chain[0])
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("enroll: %w", err)
	}
	return tls.Certificate{Certificate: id.Chain, PrivateKey: key, Leaf: leaf}, nil
}

// ErrNotNewer: the certificate does not end later than the one there is.
var ErrNotNewer = errors.New("enroll: certificate is not newer")

// Renewed is the identity with another chain, if that is for this device's name
// and key, leads to the root it trusts, and its certificate ends later than the
// present one's: an answer that somebody repeats changes nothing. ErrAnswer,
// ErrNotNewer.
func (id Identity) Renewed(chain [][]byte, key crypto.PublicKey) (Identity, error) {
	next := id
	next.Chain = chain
	if err := next.check(key); err != nil {
		return id, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	// One that ends in the same second may be of another authority.
	if was, is := id.NotAfter(), next.NotAfter(); is.Before(was) || is.Equal(was) && bytes.Equal(chain[0], id.Chain[0]) {
		return id, fmt.Errorf("%w: it ends %s, the present one %s", ErrNotNewer, next.NotAfter().Format(time.RFC3339), id.NotAfter().Format(time.RFC3339))
	}
	return next, nil
}

// Life is from when to when the device's certificate is good; zero times if
// there is none.
func (id Identity) Life() (from, to time.Time) {
	if len(id.Chain) == 0 {
		return
	}
	c, err := x509.ParseCertificate(id.Chain[0])
	if err != nil {
		return
	}
	return c.NotBefore, c.NotAfter
}

// CertificateRequest asks for a certificate for the device's name, signed with
// its key.
func (id Identity) CertificateRequest(key crypto.Signer) ([]byte, error) {
	csr, err := certificateRequest(id.Device, key)
	if err != nil {
		return nil, fmt.Errorf("enroll: certificate request: %w", err)
	}
	return csr, nil
}

// NotAfter is when the device's certificate ends; the zero time if there is
// none.
func (id Identity) NotAfter() time.Time {
	if len(id.Chain) == 0 {
		return time.Time{}
	}
	c, err := x509.ParseCertificate(id.Chain[0])
	if err != nil {
		return time.Time{}
	}
	return c.NotAfter
}

// check says whether the parts belong together. A nil key is not compared.
func (id Identity) check(key crypto.PublicKey) error {
	if !wire.ValidName(id.Device) || !wire.ValidName(id.Fleet) {
		return fmt.Errorf("device %q, fleet %q: not valid names", id.Device, id.Fleet)
	}
	host, port, err := net.SplitHostPort(id.Broker)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n == 0 || host == "" {
		return fmt.Errorf("broker %q is no host:port", id.Broker)
	}
	if len(id.Sources) > wire.MaxSources || slices.ContainsFunc(id.Sources, func(s string) bool { return !strings.HasPrefix(s, "https://") || len(s) > 300 }) {
		return fmt.Errorf("sources %.300q are not at most %d of https://host:port", id.Sources, wire.MaxSources)
	}
	if len(id.RootJSON) == 0 || len(id.RootJSON) > wire.MaxRoot {
		return fmt.Errorf("root.json of %d bytes", len(id.RootJSON))
	}
	chain, err := parseAll("chain", id.Chain)
	if err != nil {
		return err
	}
	roots, err := parseAll("roots", id.CA)
	if err != nil {
		return err
	}
	return checkChain(id.Device, chain, roots, key)
}

func parseAll(what string, ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) < 1 || len(ders) > maxCerts {
		return nil, fmt.Errorf("%s of %d certificates", what, len(ders))
	}
	var out []*x509.Certificate
	for _, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		out = append(out, c)
	}
	return out, nil
}

// checkChain verifies the chain at a moment within its own validity: a device
// that has just been switched on for the first time may think it is 1970.
func checkChain(device string, chain, roots []*x509.Certificate, key crypto.PublicKey) error {
	leaf := chain[0]
	if leaf.Subject.CommonName != device {
		return fmt.Errorf("certificate names %q, this device is %q", leaf.Subject.CommonName, device)
	}
	if key != nil {
		want, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return err
		}
		if !bytes.Equal(want, leaf.RawSubjectPublicKeyInfo) {
			return errors.New("certificate is for another key")
		}
	}
	o := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: leaf.NotBefore,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range roots {
		if !c.IsCA {
			return fmt.Errorf("root %q is no authority", c.Subject.CommonName)
		}
		o.Roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
		if c.NotBefore.After(o.CurrentTime) {
			o.CurrentTime = c.NotBefore
		}
	}
	if _, err := leaf.Verify(o); err != nil {
		return fmt.Errorf("certificate chain: %w", err)
	}
	return nil
}
