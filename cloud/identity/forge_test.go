package identity_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud/identity"
)

func must(c identity.Issued, err error) identity.Issued {
	if err != nil {
		panic(err)
	}
	return c
}

func leaf(t *testing.T, m member) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(m.chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func encodedKey(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// forge is what a thief with the key of a hub CA can make.
func forge(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, name string, key *ecdsa.PrivateKey) [][]byte {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, ca, key.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{der, ca.Raw}
}

func readKey(t *testing.T, b []byte) *ecdsa.PrivateKey {
	t.Helper()
	p, _ := pem.Decode(b)
	k, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return k.(*ecdsa.PrivateKey)
}
