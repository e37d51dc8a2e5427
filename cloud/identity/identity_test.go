package identity_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud/identity"
)

func newKey(t testing.TB, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func csrFor(t testing.TB, name string, key crypto.Signer) []byte {
	t.Helper()
	b, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func create(t testing.TB, o identity.Options) (*identity.Authority, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ca")
	a, err := identity.Create(dir, "yard", []string{"hub.example", "192.0.2.7"}, o)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func issue(t testing.TB, a *identity.Authority, name string) identity.Issued {
	t.Helper()
	c, err := a.IssueDevice(name, csrFor(t, name, newKey(t, elliptic.P256())))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFilesAndReopening(t *testing.T) {
	a, dir := create(t, identity.Options{})
	for _, name := range []string{"ca.key", "hub-ca.key", "server.key", "client.key"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	if _, err := identity.Create(dir, "yard", nil, identity.Options{}); !errors.Is(err, identity.ErrExists) {
		t.Errorf("creating twice: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil { // goes offline
		t.Fatal(err)
	}
	b, err := identity.Open(dir, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if b.Fleet() != "yard" || b.Pin() != a.Pin() || !bytes.Equal(b.CA(), a.CA()) {
		t.Error("the fleet is another after opening")
	}
	if _, err := identity.Open(t.TempDir(), identity.Options{}); !errors.Is(err, identity.ErrNoFleet) {
		t.Errorf("opening nothing: %v", err)
	}
}

func TestSealedRootKey(t *testing.T) {
	_, dir := create(t, identity.Options{Seal: func(b []byte) ([]byte, error) {
		if !bytes.Contains(b, []byte("PRIVATE KEY")) {
			t.Error("Seal did not get a key")
		}
		return []byte("sealed"), nil
	}})
	b, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil || string(b) != "sealed" {
		t.Errorf("ca.key holds %q, %v", b, err)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct{ fleet, host string }{{"Yard", "a"}, {"", "a"}, {"a/b", "a"}, {"yard", "a b"}, {"yard", "http://x"}, {"yard", ""}} {
		if _, err := identity.Create(t.TempDir(), c.fleet, []string{c.host}, identity.Options{}); !errors.Is(err, identity.ErrName) {
			t.Errorf("fleet %q host %q: %v", c.fleet, c.host, err)
		}
	}
}

func TestHubCertificates(t *testing.T) {
	a, _ := create(t, identity.Options{})
	server, err := x509.ParseCertificate(a.TLSConfig().Certificates[0].Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	inter := x509.NewCertPool()
	hubCA, err := x509.ParseCertificate(a.TLSConfig().Certificates[0].Certificate[1])
	if err != nil {
		t.Fatal(err)
	}
	inter.AddCert(hubCA)
	for _, name := range []string{"localhost", "127.0.0.1", "::1", "hub.example", "192.0.2.7"} {
		if _, err := server.Verify(x509.VerifyOptions{DNSName: name, Roots: a.Pool(), Intermediates: inter}); err != nil {
			t.Errorf("server as %s: %v", name, err)
		}
	}
	if _, err := server.Verify(x509.VerifyOptions{DNSName: "other.example", Roots: a.Pool(), Intermediates: inter}); err == nil {
		t.Error("server certificate is good for any name")
	}
	if cn := a.HubCertificate().Leaf.Subject.CommonName; cn != identity.HubName {
		t.Errorf("client certificate names %q", cn)
	}
}

func TestDeviceCertificate(t *testing.T) {
	a, _ := create(t, identity.Options{})
	c := issue(t, a, "cam-1")
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	inter := x509.NewCertPool()
	hubCA, err := x509.ParseCertificate(c.Chain[1])
	if err != nil {
		t.Fatal(err)
	}
	inter.AddCert(hubCA)
	as := func(u x509.ExtKeyUsage, at time.Time) error {
		_, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), Intermediates: inter, KeyUsages: []x509.ExtKeyUsage{u}, CurrentTime: at})
		return err
	}
	if err := as(x509.ExtKeyUsageClientAuth, time.Now()); err != nil {
		t.Error(err)
	}
	if as(x509.ExtKeyUsageServerAuth, time.Now()) == nil {
		t.Error("a device could pose as the broker")
	}
	if as(x509.ExtKeyUsageClientAuth, time.Now().Add(identity.DeviceValidity+time.Minute)) == nil {
		t.Error("a device certificate has no end")
	}
	if leaf.IsCA || c.Serial != identity.Serial(leaf) || c.Device != "cam-1" {
		t.Errorf("issued %+v", c)
	}
}

func TestRequestsRefused(t *testing.T) {
	a, _ := create(t, identity.Options{})
	p256 := newKey(t, elliptic.P256())
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := csrFor(t, "cam-1", p256)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	for name, c := range map[string]struct {
		device string
		csr    []byte
		want   error
	}{
		"reserved name": {identity.HubName, csrFor(t, identity.HubName, p256), identity.ErrName},
		"upper case":    {"Cam", csrFor(t, "Cam", p256), identity.ErrName},
		"wildcard":      {"+", csrFor(t, "+", p256), identity.ErrName},
		"two levels":    {"a/b", csrFor(t, "a/b", p256), identity.ErrName},
		"empty":         {"", csrFor(t, "", p256), identity.ErrName},
		"other name":    {"cam-1", csrFor(t, "cam-2", p256), identity.ErrCSR},
		"hub inside":    {"cam-1", csrFor(t, identity.HubName, p256), identity.ErrCSR},
		"RSA":           {"cam-1", csrFor(t, "cam-1", weak), identity.ErrCSR},
		"P-384":         {"cam-1", csrFor(t, "cam-1", newKey(t, elliptic.P384())), identity.ErrCSR},
		"forged":        {"cam-1", forged, identity.ErrCSR},
		"cut off":       {"cam-1", good[:len(good)/2], identity.ErrCSR},
		"nothing":       {"cam-1", nil, identity.ErrCSR},
	} {
		if _, err := a.IssueDevice(c.device, c.csr); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestRevocation(t *testing.T) {
	a, dir := create(t, identity.Options{})
	b, err := identity.Open(dir, identity.Options{}) // as another process has it
	if err != nil {
		t.Fatal(err)
	}
	gone, stays := issue(t, a, "cam-1"), issue(t, a, "cam-2")
	for range 2 {
		if err := a.Revoke(gone.Serial); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	more := make([]identity.Issued, 8)
	for i := range more {
		more[i] = issue(t, a, "cam-3")
		wg.Go(func() {
			if err := []*identity.Authority{a, b}[i%2].Revoke(more[i].Serial); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, x := range []*identity.Authority{a, b} {
		if !x.Revoked(gone.Serial) || x.Revoked(stays.Serial) {
			t.Error("the list says otherwise")
		}
		for _, m := range more {
			if !x.Revoked(m.Serial) {
				t.Error("a revocation was lost")
			}
		}
	}
	for _, s := range []string{"", "xyz", "-1", "0"} {
		if a.Revoke(s) == nil {
			t.Errorf("serial %q was taken", s)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "crl.pem"), []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if !a.Revoked(gone.Serial) {
		t.Error("a damaged list forgives")
	}
	if _, err := identity.Open(dir, identity.Options{}); err == nil {
		t.Error("a damaged list opens")
	}
}

func TestRenewal(t *testing.T) {
	now := time.Now()
	clock := identity.Options{Now: func() time.Time { return now }}
	a, dir := create(t, clock)
	pin, end := a.Pin(), a.HTTPSConfig().Certificates[0].Leaf.NotAfter
	c := issue(t, a, "cam-1")
	if err := a.Revoke(c.Serial); err != nil {
		t.Fatal(err)
	}
	now = now.Add(330 * 24 * time.Hour)
	b, err := identity.Open(dir, clock)
	if err != nil {
		t.Fatal(err)
	}
	if !b.HTTPSConfig().Certificates[0].Leaf.NotAfter.After(end) {
		t.Error("the server certificate was not renewed")
	}
	if b.Pin() != pin {
		t.Error("renewal changed the key: tokens would be void")
	}
	if !b.Revoked(c.Serial) {
		t.Error("renewal of the list forgave")
	}
}

// memory is a TokenStore and DeviceStore.
type memory struct {
	mu      sync.Mutex
	tokens  map[string]time.Time
	spent   map[string]bool
	devices map[string]string
}

func newMemory() *memory {
	return &memory{tokens: map[string]time.Time{}, spent: map[string]bool{}, devices: map[string]string{}}
}

func (m *memory) AddToken(_ context.Context, hash string, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens[hash] = until
	return nil
}

func (m *memory) ConsumeToken(_ context.Context, hash, _ string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, ok := m.tokens[hash]
	switch {
	case !ok:
		return identity.ErrTokenUnknown
	case m.spent[hash]:
		return identity.ErrTokenSpent
	case time.Now().After(until):
		return identity.ErrTokenLapsed
	}
	m.spent[hash] = true
	return nil
}

func (m *memory) Enrolled(_ context.Context, device string) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.devices[device]
	return ok, nil
}

func (m *memory) AddDevice(_ context.Context, c identity.Issued) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	former := m.devices[c.Device]
	m.devices[c.Device] = c.Serial
	return former, nil
}
