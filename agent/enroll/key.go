package enroll

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// SoftwareKey is the device key in a file in dir; it is made when it does not
// exist. Where there is a TPM the key belongs into it, and this is not used.
func SoftwareKey(dir string) (crypto.Signer, error) {
	path := filepath.Join(dir, keyFile)
	b, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k, err := makeKey(dir, path)
		if err != nil {
			return nil, fmt.Errorf("enroll: make device key: %w", err)
		}
		return k, nil
	case err != nil:
		return nil, fmt.Errorf("enroll: device key: %w", err)
	}
	p, _ := pem.Decode(b)
	if p == nil {
		return nil, fmt.Errorf("enroll: device key %s: no PEM block; remove the file and enrol again", path)
	}
	k, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	if err != nil {
		return nil, fmt.Errorf("enroll: device key %s: %w", path, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("enroll: device key %s: not ECDSA P-256", path)
	}
	return key, nil
}

func makeKey(dir, path string) (crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return key, writeFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}
