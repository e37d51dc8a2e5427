package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud/identity"
)

// member is a device with its key and newest certificate.
type member struct {
	key   *ecdsa.PrivateKey
	chain [][]byte
}

func join(t *testing.T, a *identity.Authority, name string) member {
	t.Helper()
	m := member{key: newKey(t, elliptic.P256())}
	c, err := a.IssueDevice(name, csrFor(t, name, m.key))
	if err != nil {
		t.Fatal(err)
	}
	m.chain = c.Chain
	return m
}

// connects says whether the hub's broker would let a certificate in, and with
// which server certificate it answers.
func connects(t *testing.T, a *identity.Authority, m member) (*x509.Certificate, error) {
	t.Helper()
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(server, a.TLSConfig()).HandshakeContext(t.Context()) }()
	c := tls.Client(client, &tls.Config{
		InsecureSkipVerify: true,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &tls.Certificate{Certificate: m.chain, PrivateKey: m.key}, nil
		},
	})
	if err := c.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.Read(make([]byte, 1)) }() // the alert, if any
	return c.ConnectionState().PeerCertificates[0], <-done
}

func rootKey(t *testing.T, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRenewalOfADevice(t *testing.T) {
	now := time.Now()
	a, _ := create(t, identity.Options{Now: func() time.Time { return now }})
	m := join(t, a, "cam-1")
	first, err := a.Renew("cam-1", csrFor(t, "cam-1", m.key))
	if err != nil || string(first.Chain[0]) != string(m.chain[0]) {
		t.Errorf("asked at once: another certificate, %v", err)
	}
	if due, err := a.Due("cam-1"); err != nil || due {
		t.Errorf("due at once: %v, %v", due, err)
	}
	now = now.Add(61 * 24 * time.Hour)
	if due, err := a.Due("cam-1"); err != nil || !due {
		t.Errorf("due after 61 days: %v, %v", due, err)
	}
	next, err := a.Renew("cam-1", csrFor(t, "cam-1", m.key))
	if err != nil || !next.NotAfter.After(first.NotAfter) {
		t.Fatalf("after 61 days: until %v, %v", next.NotAfter, err)
	}
	again, err := a.Renew("cam-1", csrFor(t, "cam-1", m.key)) // the answer was lost
	if err != nil || again.Serial != next.Serial {
		t.Errorf("asked again: %v, %v", again.Serial, err)
	}
	for _, c := range []member{m, {m.key, next.Chain}} { // the old one is good still
		if _, err := connects(t, a, c); err != nil {
			t.Error(err)
		}
	}
	for name, row := range map[string]struct {
		device string
		csr    []byte
		want   error
	}{
		"another key":   {"cam-1", csrFor(t, "cam-1", newKey(t, elliptic.P256())), identity.ErrOtherKey},
		"another name":  {"cam-1", csrFor(t, "cam-2", m.key), identity.ErrCSR},
		"a stranger":    {"cam-2", csrFor(t, "cam-2", m.key), identity.ErrNotMember},
		"the hub":       {"hub", csrFor(t, "hub", m.key), identity.ErrName},
		"a path":        {"../ca", csrFor(t, "../ca", m.key), identity.ErrName},
		"no request":    {"cam-1", []byte("x"), identity.ErrCSR},
		"another curve": {"cam-1", csrFor(t, "cam-1", newKey(t, elliptic.P384())), identity.ErrCSR},
	} {
		if _, err := a.Renew(row.device, row.csr); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
	// Throwing it out means both certificates.
	if err := a.RevokeDevice("cam-1", ""); err != nil {
		t.Fatal(err)
	}
	for _, c := range []member{m, {m.key, next.Chain}} {
		if _, err := connects(t, a, c); err == nil {
			t.Error("a revoked certificate connects")
		}
	}
	if _, err := a.Renew("cam-1", csrFor(t, "cam-1", m.key)); !errors.Is(err, identity.ErrRevoked) {
		t.Errorf("renewal of a revoked device: %v", err)
	}
}

func TestHubCAReplaced(t *testing.T) {
	a, dir := create(t, identity.Options{})
	other, err := identity.Open(dir, identity.Options{}) // the hub that runs meanwhile
	if err != nil {
		t.Fatal(err)
	}
	m := join(t, a, "cam-1")
	pin, before := a.Pin(), other.Generation()
	thief, err := x509.ParseCertificate(m.chain[1])
	if err != nil {
		t.Fatal(err)
	}
	copied, err := os.ReadFile(filepath.Join(dir, "hub-ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	rot, err := a.RotateHubCA(rootKey(t, dir), 0)
	if err != nil {
		t.Fatal(err)
	}
	if rot.Former != identity.Serial(thief) || other.Generation() != rot.Serial || other.Generation() == before {
		t.Errorf("rotation %+v, the other process is at %s", rot, other.Generation())
	}
	if other.Pin() != pin {
		t.Error("tokens are no good any more")
	}
	if !other.Revoked(rot.Former) {
		t.Error("the former hub CA is not revoked")
	}
	// The device goes on, by its key, and sees a chain of the new hub CA.
	server, err := connects(t, other, m)
	if err != nil {
		t.Errorf("the device does not survive it: %v", err)
	}
	hubCA, err := x509.ParseCertificate(must(other.Renew("cam-1", csrFor(t, "cam-1", m.key))).Chain[1])
	if err != nil || identity.Serial(hubCA) != rot.Serial || server.CheckSignatureFrom(hubCA) != nil {
		t.Errorf("what the hub shows is not of the new hub CA: %v", err)
	}
	// Whoever has the former hub CA's key makes certificates for nobody.
	forged := member{key: newKey(t, elliptic.P256())}
	forged.chain = forge(t, thief, readKey(t, copied), "cam-1", forged.key)
	if _, err := connects(t, other, forged); err == nil {
		t.Error("a certificate by the former hub CA connects, with another key")
	}
	if due, err := other.Due("cam-1"); err != nil || due {
		t.Errorf("due although renewed: %v, %v", due, err)
	}
	if _, err := a.RotateHubCA(encodedKey(t, forged.key), 0); !errors.Is(err, identity.ErrOffline) {
		t.Errorf("with another root key: %v", err)
	}
	if _, err := identity.Open(dir, identity.Options{}); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

func TestGraceOfTheFormerHubCA(t *testing.T) {
	now := time.Now()
	o := identity.Options{Now: func() time.Time { return now }}
	a, dir := create(t, o)
	m := join(t, a, "cam-1")
	gone := join(t, a, "cam-2")
	rot, err := a.RotateHubCA(rootKey(t, dir), 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if a.Revoked(rot.Former) {
		t.Error("revoked before its time")
	}
	if due, err := a.Due("cam-1"); err != nil || !due {
		t.Errorf("not due: %v, %v", due, err)
	}
	if err := a.RevokeDevice("cam-2", ""); err != nil { // a list of the former CA's
		t.Fatal(err)
	}
	if _, err := connects(t, a, gone); err == nil {
		t.Error("a revoked device connects")
	}
	if _, err := a.RotateHubCA(rootKey(t, dir), 0); !errors.Is(err, identity.ErrGrace) {
		t.Errorf("again within the grace: %v", err)
	}
	now = now.Add(25 * time.Hour)
	if err := a.Maintain(); err != nil {
		t.Fatal(err)
	}
	if !a.Revoked(rot.Former) || !a.Revoked(identity.Serial(leaf(t, gone))) {
		t.Error("not revoked after the grace")
	}
	if _, err := os.Stat(filepath.Join(dir, "former-ca.key")); err == nil {
		t.Error("the former key is still here")
	}
	if _, err := connects(t, a, m); err != nil {
		t.Errorf("a member with its own key: %v", err)
	}
	if _, err := a.RotateHubCA(rootKey(t, dir), 0); err != nil {
		t.Errorf("again after the grace: %v", err)
	}
	if !a.Revoked(rot.Former) {
		t.Error("forgotten by the second rotation")
	}
}

// A power cut while the files of a rotation are moved is finished by the next
// who comes.
func TestRotationCutOff(t *testing.T) {
	for _, name := range []string{"hub-ca.crt", "hub-ca.key", "crl.pem", "server.crt"} {
		t.Run(name, func(t *testing.T) {
			a, dir := create(t, identity.Options{})
			if _, err := a.RotateHubCA(rootKey(t, dir), 0); err != nil {
				t.Fatal(err)
			}
			good, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			// As it was when all but this file had been moved.
			next := filepath.Join(dir, "next")
			err = errors.Join(os.Mkdir(next, 0o700), os.Rename(filepath.Join(dir, name), filepath.Join(next, name)),
				os.WriteFile(filepath.Join(dir, name), []byte("old"), 0o600), os.WriteFile(filepath.Join(dir, "next.ready"), nil, 0o600))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := identity.Open(dir, identity.Options{}); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != string(good) {
				t.Errorf("not finished: %v", err)
			}
		})
	}
}

// The hub's own certificates are renewed while it runs.
func TestServerCertificateRenewed(t *testing.T) {
	now := time.Now()
	a, _ := create(t, identity.Options{Now: func() time.Time { return now }})
	join(t, a, "cam-1")
	pin, client := a.Pin(), identity.Serial(a.HubCertificate().Leaf)
	now = now.Add(310 * 24 * time.Hour)
	if err := a.Maintain(); err != nil {
		t.Fatal(err)
	}
	server, err := connects(t, a, join(t, a, "cam-2"))
	if err != nil || server.NotAfter.Sub(now) < 300*24*time.Hour {
		t.Errorf("the server's certificate ends %v, %v", server.NotAfter, err)
	}
	if identity.Serial(a.HubCertificate().Leaf) == client || a.Pin() != pin {
		t.Error("the client's certificate is the old one, or the pin another")
	}
}
