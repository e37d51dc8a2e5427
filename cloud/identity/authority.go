package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// HubName is the common name of the hub's client certificate. No device may
// have it.
const HubName = "hub"

// DeviceValidity is how long a device certificate is good.
const DeviceValidity = 90 * 24 * time.Hour

const (
	rootValidity   = 20 * 365 * 24 * time.Hour
	hubCAValidity  = 5 * 365 * 24 * time.Hour
	serverValidity = 365 * 24 * time.Hour
	renewBefore    = 60 * 24 * time.Hour
	crlValidity    = 365 * 24 * time.Hour
	backdate       = time.Hour // for clocks that are a little behind
)

// The kinds of refusal.
var (
	ErrExists  = errors.New("identity: a fleet is here already")
	ErrNoFleet = errors.New("identity: no fleet here")
	ErrName    = errors.New("identity: name not allowed")
	ErrCSR     = errors.New("identity: certificate request refused")
	ErrOffline = errors.New("identity: the root key is not here")
)

// Options are for special set-ups; the zero value is right for most.
type Options struct {
	// Now is the clock. Nil means time.Now.
	Now func() time.Time
	// Seal encrypts the root key (PEM) before Create writes it. Nil means that
	// it is written in the clear, protected by its mode alone: whoever calls
	// Create so should say that to the operator.
	Seal func(pem []byte) ([]byte, error)
	// RootKey is the file into which Create writes the root key. Empty means
	// ca.key in the folder; it may be on a medium that is taken away.
	RootKey string
	// DeviceValidity is how long new device certificates are good. Zero means
	// the constant of that name.
	DeviceValidity time.Duration
}

// Authority is a fleet's certificate authority as the hub has it. It is safe
// for concurrent use.
type Authority struct {
	dir   string
	fleet string
	names []string
	now   func() time.Time

	validity time.Duration // of device certificates
	root     *x509.Certificate

	mu   sync.Mutex
	mat  *material
	list crl
}

// about is the file fleet.json.
type about struct {
	V     int      `json:"v"`
	Fleet string   `json:"fleet"`
	Names []string `json:"names"`
}

// Create makes the certificates of a new fleet in dir. names are the DNS names
// and IP addresses by which devices reach the hub; localhost, 127.0.0.1 and ::1
// are always added. ErrExists, ErrName.
func Create(dir, fleet string, names []string, o Options) (*Authority, error) {
	o = o.filled()
	if !wire.ValidName(fleet) {
		return nil, fmt.Errorf("%w: fleet %q: 1 to 63 of a-z, 0-9 and hyphen", ErrName, fleet)
	}
	for _, n := range names {
		if !validHost(n) {
			return nil, fmt.Errorf("%w: hub name %q is neither a DNS name nor an IP address", ErrName, n)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("identity: create: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "fleet.json")); err == nil {
		return nil, fmt.Errorf("%w: %s", ErrExists, dir)
	}
	if err := makeFleet(dir, about{V: 1, Fleet: fleet, Names: names}, o); err != nil {
		return nil, fmt.Errorf("identity: create fleet %q: %w", fleet, err)
	}
	return Open(dir, o)
}

// makeFleet writes fleet.json last: what lacks it is no fleet and may be made
// again.
func makeFleet(dir string, a about, o Options) error {
	now := o.Now()
	rootKey, err := newKey()
	if err != nil {
		return err
	}
	root, err := sign(rootTemplate(a.Fleet, now), nil, rootKey.Public(), rootKey)
	if err != nil {
		return err
	}
	hubKey, err := newKey()
	if err != nil {
		return err
	}
	hub, err := sign(hubCATemplate(a.Fleet, now, root), root, hubKey.Public(), rootKey)
	if err != nil {
		return err
	}
	sealed, err := encodeKey(rootKey)
	if err == nil && o.Seal != nil {
		sealed, err = o.Seal(sealed)
	}
	if err != nil {
		return err
	}
	if o.RootKey == "" {
		o.RootKey = filepath.Join(dir, "ca.key")
	}
	if err := writeFile(o.RootKey, sealed, 0o600); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, "ca.crt"), encodeCerts(root), 0o644); err != nil {
		return err
	}
	if err := writePair(dir, "hub-ca", hubKey, hub); err != nil {
		return err
	}
	rootList, err := signList(root, rootKey, nil, now)
	if err != nil {
		return err
	}
	hubList, err := signList(hub, hubKey, nil, now)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, crlFile), encodeLists(rootList, hubList), 0o644); err != nil {
		return err
	}
	if err := renewServer(dir, a, hub, hubKey, o.Now); err != nil {
		return err
	}
	b, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, "fleet.json"), append(b, '\n'), 0o644)
}

// Open opens the fleet in dir. The root key is neither needed nor read. The
// hub's own certificates are renewed, with the same keys, when their end is
// near: the tokens that name them stay good. ErrNoFleet.
func Open(dir string, o Options) (*Authority, error) {
	a, err := open(dir, o.filled())
	if err != nil {
		return nil, fmt.Errorf("identity: open %s: %w", dir, err)
	}
	return a, nil
}

func open(dir string, o Options) (*Authority, error) {
	b, err := readFile(filepath.Join(dir, "fleet.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoFleet
	}
	if err != nil {
		return nil, err
	}
	var ab about
	if err := wire.Decode(b, len(b), &ab); err != nil {
		return nil, err
	}
	if !wire.ValidName(ab.Fleet) {
		return nil, fmt.Errorf("%w: fleet %q", ErrName, ab.Fleet)
	}
	a := &Authority{dir: dir, fleet: ab.Fleet, names: ab.Names, now: o.Now, validity: o.DeviceValidity}
	roots, err := readCerts(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, err
	}
	a.root = roots[0]
	return a, a.Maintain()
}

func (o Options) filled() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.DeviceValidity <= 0 {
		o.DeviceValidity = DeviceValidity
	}
	return o
}

// Fleet is the fleet's name.
func (a *Authority) Fleet() string { return a.fleet }

// CA is the root certificate, DER: what devices trust.
func (a *Authority) CA() []byte { return a.root.Raw }

// Pool holds the root certificate.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.root)
	return p
}

// HubCertificate is the hub's certificate as a client of the broker, as it is
// now: ask again for every connection.
func (a *Authority) HubCertificate() tls.Certificate { return a.must().client }

// must is current, which cannot fail once Open has succeeded: what was last
// read counts.
func (a *Authority) must() *material {
	m, err := a.current()
	if err != nil {
		panic("internal error: identity: " + err.Error())
	}
	return m
}

// Generation changes when the hub CA was replaced: its serial number.
func (a *Authority) Generation() string { return Serial(a.must().hubCA) }

// TLSConfig is for the MQTT side: TLS 1.3, and the client must have a
// certificate of this fleet that is not revoked. It follows renewals.
func (a *Authority) TLSConfig() *tls.Config {
	return a.following(&tls.Config{
		ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs:  a.Pool(),
		// A resumed session would skip what was decided since it began.
		SessionTicketsDisabled: true,
		VerifyConnection:       a.verifyPeer,
	})
}

// HTTPSConfig is for enrolment: TLS 1.3, no client certificate. It follows
// renewals.
func (a *Authority) HTTPSConfig() *tls.Config { return a.following(&tls.Config{}) }

// following makes a server's configuration show the certificate of the day.
// GetCertificate would not do: it is not asked when a client that calls an
// address names no server.
func (a *Authority) following(c *tls.Config) *tls.Config {
	c.MinVersion, c.Time = tls.VersionTLS13, a.now
	c.Certificates = []tls.Certificate{a.must().server}
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		m, err := a.current()
		if err != nil {
			return nil, err
		}
		t := c.Clone() // with what the caller has added to it
		t.Certificates, t.GetConfigForClient = []tls.Certificate{m.server}, nil
		return t, nil
	}
	return c
}

// verifyPeer refuses what is revoked. A hub CA that was revoked does not pull
// its devices down with it, if they have the keys they enrolled with: those
// were recorded when that hub CA was good, and a thief does not have them.
func (a *Authority) verifyPeer(s tls.ConnectionState) error {
	if len(s.VerifiedChains) == 0 {
		return errors.New("identity: no verified chain")
	}
	for i, c := range s.VerifiedChains[0] {
		if a.Revoked(Serial(c)) && (i == 0 || !a.pinned(s.VerifiedChains[0][0])) {
			return fmt.Errorf("identity: certificate %s of %q is revoked", Serial(c), c.Subject.CommonName)
		}
	}
	return nil
}
