package anchor

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha512" // the hashes that the table names
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"
)

func checkSignatures(t *testing.T, s crypto.Signer) {
	t.Helper()
	pub, ok := s.Public().(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		t.Fatalf("public key %T", s.Public())
	}
	for _, h := range []crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512} {
		w := h.New()
		w.Write([]byte("text"))
		digest := w.Sum(nil)
		sig, err := s.Sign(rand.Reader, digest, h)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(pub, digest, sig) {
			t.Fatalf("%v: the signature does not verify", h)
		}
	}
	for name, try := range map[string]struct {
		digest int
		hash   crypto.Hash
	}{"SHA-1": {20, crypto.SHA1}, "wrong length": {20, crypto.SHA256}, "no hash": {32, 0}} {
		if _, err := s.Sign(rand.Reader, make([]byte, try.digest), try.hash); !errors.Is(err, ErrDigest) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a faulty TPM signs is not passed on.
func TestSignatureIsVerified(t *testing.T) {
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{openTPM(t, newEmulator(t), t.TempDir()), &other.PublicKey}
	if _, err := s.Sign(nil, make([]byte, 32), crypto.SHA256); !errors.Is(err, ErrTampered) {
		t.Fatal(err)
	}
}

// certify lets the signer sign its own certificate.
func certify(t *testing.T, s crypto.Signer, name string) tls.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}, s.Public(), s)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: s, Leaf: leaf}
}

func TestMutualTLS(t *testing.T) {
	s, err := openTPM(t, newEmulator(t), t.TempDir()).Signer()
	if err != nil {
		t.Fatal(err)
	}
	softKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	device, broker := certify(t, s, "gate-1"), certify(t, softKey, "broker")
	pool := func(c tls.Certificate) *x509.CertPool {
		p := x509.NewCertPool()
		p.AddCert(c.Leaf)
		return p
	}
	for _, version := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		server := &tls.Config{MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{broker}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool(device)}
		client := &tls.Config{MinVersion: version, MaxVersion: version, Certificates: []tls.Certificate{device}, RootCAs: pool(broker), ServerName: "broker"}
		t.Run(tls.VersionName(version), func(t *testing.T) {
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() { handshake(t, server, client) })
			}
			wg.Wait()
		})
	}
}

func handshake(t *testing.T, server, client *tls.Config) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	peer := make(chan string, 1)
	go func() {
		defer close(peer)
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		s := tls.Server(c, server)
		defer s.Close()
		if err := s.Handshake(); err != nil {
			t.Error(err)
			return
		}
		if _, err := s.Write([]byte("welcome")); err != nil {
			t.Error(err)
		}
		peer <- s.ConnectionState().PeerCertificates[0].Subject.CommonName
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	// In TLS 1.3 the client learns that it was accepted by the first bytes.
	if b, err := io.ReadAll(c); err != nil || string(b) != "welcome" {
		t.Errorf("%q %v", b, err)
	}
	if name := <-peer; name != "gate-1" {
		t.Errorf("the server saw %q", name)
	}
}
