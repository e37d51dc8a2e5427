package publish

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

const (
	keySuffix  = ".key"
	maxKeyFile = 16 << 10
	pemType    = "PRIVATE KEY"
)

// Protection says how a key file is locked.
type Protection struct {
	Passphrase string
	// Insecure allows a file without passphrase: for demonstrations, and for
	// the online keys of a hub that starts unattended.
	Insecure bool
	// WorkFactor is log2 of scrypt's cost; 0 means 18, about a second.
	WorkFactor int
}

// KeyDir is a folder of key files, {role}.key and {role}-2.key and so on, each
// a PKCS #8 key, encrypted in the age format with a passphrase. Beside each
// stands its public half, {role}.pub, for those who must not have the key.
type KeyDir struct{ Path string }

// Create makes a new key of a role and writes it durably. A file that exists
// is never replaced: a second key of the role gets the next number.
func (d KeyDir) Create(role string, p Protection) (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("publish: make %s key: %w", role, err)
	}
	text, err := seal(key, p)
	if err != nil {
		return nil, fmt.Errorf("publish: make %s key: %w", role, err)
	}
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return nil, fmt.Errorf("publish: make %s key: %w", role, err)
	}
	for n := 1; ; n++ {
		err := writeNew(d.file(role, n), text)
		if errors.Is(err, fs.ErrExist) && n < 100 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("publish: write %s key: %w", role, err)
		}
		return key, d.writePublic(d.file(role, n), key)
	}
}

// Load reads all keys of a role. It answers fs.ErrNotExist when there is none
// and ErrPassphrase when the passphrase is missing or wrong.
func (d KeyDir) Load(role, passphrase string) ([]crypto.Signer, error) {
	paths, err := d.files(role)
	if err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, fmt.Errorf("publish: read %s key: %w: %s", role, fs.ErrNotExist, d.file(role, 1))
	}
	var keys []crypto.Signer
	for _, path := range paths {
		text, err := readKeyFile(path)
		if err != nil {
			return nil, fmt.Errorf("publish: read %s key: %w", role, err)
		}
		key, err := unseal(text, passphrase)
		if err != nil {
			return nil, fmt.Errorf("publish: read %s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// files are a role's key files; one that was replaced may be gone.
func (d KeyDir) files(role string) ([]string, error) {
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("publish: read keys: %w", err)
	}
	var out []string
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), keySuffix)
		if ok && (name == role || strings.HasPrefix(name, role+"-")) {
			out = append(out, filepath.Join(d.Path, e.Name()))
		}
	}
	// {role}.key comes first, as it was made first; ReadDir thinks otherwise.
	slices.SortFunc(out, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) })
	return out, nil
}

func (d KeyDir) file(role string, n int) string {
	if n > 1 {
		role = fmt.Sprintf("%s-%d", role, n)
	}
	return filepath.Join(d.Path, role+keySuffix)
}

func seal(key ed25519.PrivateKey, p Protection) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	plain := pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	if p.Passphrase == "" {
		if !p.Insecure {
			return nil, fmt.Errorf("no %w given; a key without one must be asked for by name", ErrPassphrase)
		}
		return plain, nil
	}
	return Seal(plain, p.Passphrase, p.WorkFactor)
}

// Seal encrypts bytes with a passphrase, in the armoured age format. workFactor
// is log2 of scrypt's cost; 0 means 18.
func Seal(plain []byte, passphrase string, workFactor int) ([]byte, error) {
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrPassphrase, err)
	}
	if workFactor > 0 {
		to.SetWorkFactor(workFactor)
	}
	var out bytes.Buffer
	text := armor.NewWriter(&out)
	w, err := age.Encrypt(text, to)
	if err != nil {
		return nil, err
	}
	_, err = w.Write(plain)
	if err := errors.Join(err, w.Close(), text.Close()); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Unseal gives what Seal encrypted; bytes that are not encrypted as they are.
// ErrPassphrase when it is missing or wrong, ErrInvalid for a damaged file.
func Unseal(text []byte, passphrase string) ([]byte, error) {
	if strings.HasPrefix(string(text), armor.Header) {
		if passphrase == "" {
			return nil, fmt.Errorf("the key is encrypted and no %w was given", ErrPassphrase)
		}
		id, err := age.NewScryptIdentity(passphrase)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrPassphrase, err)
		}
		r, err := age.Decrypt(armor.NewReader(bytes.NewReader(text)), id)
		if _, wrong := errors.AsType[*age.NoIdentityMatchError](err); wrong {
			return nil, fmt.Errorf("wrong %w", ErrPassphrase)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: key file is damaged: %v", ErrInvalid, err)
		}
		if text, err = io.ReadAll(io.LimitReader(r, maxKeyFile)); err != nil {
			return nil, fmt.Errorf("%w: key file is damaged: %v", ErrInvalid, err)
		}
	}
	return text, nil
}

func unseal(text []byte, passphrase string) (crypto.Signer, error) {
	text, err := Unseal(text, passphrase)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != pemType {
		return nil, fmt.Errorf("%w: no key in the file", ErrInvalid)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrInvalid, err)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %T, wanted Ed25519", ErrKeys, key)
	}
	return ed, nil
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

// writeNew writes a file that must not exist: temp file, fsync, link under the
// final name, fsync of the folder. A link, other than a rename, never replaces.
func writeNew(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
