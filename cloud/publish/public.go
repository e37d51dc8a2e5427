package publish

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

const (
	publicSuffix  = ".pub"
	publicPEMType = "PUBLIC KEY"
)

// EncodePublic is a public key as a PEM file, as OpenSSL and the tools of
// hardware tokens write it too.
func EncodePublic(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fail(ErrKeys, "%v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: publicPEMType, Bytes: der}), nil
}

// ParsePublic reads a PEM file with an Ed25519 public key.
func ParsePublic(text []byte) (ed25519.PublicKey, error) {
	if len(text) > maxKeyFile {
		return nil, fail(ErrTooLarge, "public key of %d bytes", len(text))
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != publicPEMType {
		return nil, fail(ErrInvalid, "no public key in the file")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fail(ErrInvalid, "public key: %v", err)
	}
	ed, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fail(ErrKeys, "public key is %T, wanted Ed25519", key)
	}
	return ed, nil
}

func (d KeyDir) writePublic(keyPath string, key crypto.Signer) error {
	text, err := EncodePublic(key.Public())
	if err != nil {
		return err
	}
	err = writeNew(strings.TrimSuffix(keyPath, keySuffix)+publicSuffix, text)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("publish: write public key: %w", err)
	}
	return nil
}

// KeyFile is a key in a folder, as far as one sees without a passphrase.
type KeyFile struct {
	Role   string
	Path   string
	ID     string // "" where the public half does not stand beside it
	Public ed25519.PublicKey
	Locked bool
}

// List are the keys in the folder.
func (d KeyDir) List() ([]KeyFile, error) {
	var out []KeyFile
	for _, role := range allRoles() {
		paths, err := d.files(role)
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			text, err := readKeyFile(path)
			if err != nil {
				return nil, fmt.Errorf("publish: read %s key: %w", role, err)
			}
			k := KeyFile{Role: role, Path: path, Locked: !strings.HasPrefix(string(text), "-----BEGIN "+pemType)}
			if k.Locked {
				text, err = readKeyFile(strings.TrimSuffix(path, keySuffix) + publicSuffix)
				if errors.Is(err, fs.ErrNotExist) {
					out = append(out, k)
					continue
				}
				if err == nil {
					k.Public, err = ParsePublic(text)
				}
			} else {
				var key crypto.Signer
				if key, err = unseal(text, ""); err == nil {
					k.Public = key.Public().(ed25519.PublicKey)
				}
			}
			if err != nil {
				return nil, fmt.Errorf("publish: read %s: %w", filepath.Base(path), err)
			}
			if k.ID, err = KeyID(k.Public); err != nil {
				return nil, err
			}
			out = append(out, k)
		}
	}
	return out, nil
}
