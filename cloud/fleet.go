package cloud

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
)

// What opening and making a fleet may answer.
var (
	ErrNoFleet = errors.New("cloud: this folder holds no fleet")
	ErrExists  = errors.New("cloud: this folder holds a fleet already")
)

// Fleet is an open fleet folder. It is safe for concurrent use; several
// processes may have it open.
type Fleet struct {
	Dir       string
	Settings  Settings
	Registry  *registry.Registry
	Authority *identity.Authority
	keys      publish.KeyDir // the hub's
	owner     publish.KeyDir // the owner's: the same folder, or a stick
}

// InitOptions describe a new fleet.
type InitOptions struct {
	Settings Settings
	// Passphrase locks the owner's keys. Empty is refused unless Insecure.
	Passphrase string
	Insecure   bool
	// WorkFactor is the cost of guessing the passphrase: log2 of scrypt's; 0
	// means 18.
	WorkFactor int
	// Keys is the folder for the owner's keys and the key of the certificate
	// authority, which the hub never needs. Empty means the fleet's own.
	Keys string
}

// onlineProtection: the hub starts unattended; its keys are protected by their
// file mode.
var onlineProtection = publish.Protection{Insecure: true}

// Init makes a fleet in dir: certificates, role keys, the first signed
// metadata. The settings are written last: what lacks them is no fleet, and a
// broken attempt can be removed and repeated.
func Init(ctx context.Context, dir string, o InitOptions) (*Fleet, error) {
	if err := o.Settings.Check(); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, settingsFile)); err == nil {
		return nil, fmt.Errorf("%w: %s", ErrExists, dir)
	}
	if o.Passphrase == "" && !o.Insecure {
		return nil, fmt.Errorf("cloud: init: %w: the owner's keys need one", publish.ErrPassphrase)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cloud: init: %w", err)
	}
	names, err := hubNames(o.Settings)
	if err != nil {
		return nil, err
	}
	owner := publish.KeyDir{Path: filepath.Join(dir, "keys")}
	rootKey := ""
	if o.Keys != "" {
		owner.Path, rootKey = o.Keys, filepath.Join(o.Keys, caKey)
		if err := os.MkdirAll(o.Keys, 0o700); err != nil {
			return nil, fmt.Errorf("cloud: init: %w", err)
		}
	}
	authority, err := identity.Create(filepath.Join(dir, "ca"), o.Settings.Fleet, names, identity.Options{Seal: sealer(o), RootKey: rootKey})
	if err != nil {
		return nil, fmt.Errorf("cloud: init: %w", err)
	}
	f := &Fleet{Dir: dir, Settings: o.Settings, Authority: authority, keys: publish.KeyDir{Path: filepath.Join(dir, "keys")}, owner: owner}
	keys := publish.Keys{}
	for _, role := range publish.Roles() {
		p := publish.Protection{Passphrase: o.Passphrase, Insecure: o.Insecure, WorkFactor: o.WorkFactor}
		if publish.Online(role) {
			p = onlineProtection
		}
		key, err := f.KeyDir(role).Create(role, p)
		if err != nil {
			return nil, fmt.Errorf("cloud: init: %w", err)
		}
		keys[role] = []crypto.Signer{key}
	}
	if f.Registry, err = registry.Open(ctx, filepath.Join(dir, "registry")); err != nil {
		return nil, err
	}
	if _, err := publish.Init(ctx, repo{f.Registry, nil}, keys, publish.InitOptions{Fleet: o.Settings.Fleet, Now: time.Now()}); err != nil {
		return nil, errors.Join(fmt.Errorf("cloud: init: %w", err), f.Close())
	}
	if err := f.Settings.save(dir); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func sealer(o InitOptions) func([]byte) ([]byte, error) {
	if o.Passphrase == "" {
		return nil
	}
	return func(pem []byte) ([]byte, error) { return publish.Seal(pem, o.Passphrase, o.WorkFactor) }
}

// hubNames are what the hub's certificate must stand for.
func hubNames(s Settings) ([]string, error) {
	var names []string
	for _, addr := range []string{s.Broker.Public, s.Enroll.Public, s.External} {
		if addr == "" {
			continue
		}
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("%w: %q is no host:port", ErrSettings, addr)
		}
		if host != "localhost" {
			names = append(names, host)
		}
	}
	return names, nil
}

// Open opens the fleet in dir.
func Open(ctx context.Context, dir string) (*Fleet, error) {
	s, err := loadSettings(dir)
	if err != nil {
		return nil, err
	}
	f := &Fleet{Dir: dir, Settings: s, keys: publish.KeyDir{Path: filepath.Join(dir, "keys")}}
	f.owner = f.keys
	if f.Authority, err = identity.Open(filepath.Join(dir, "ca"), identity.Options{}); err != nil {
		return nil, fmt.Errorf("cloud: %w", err)
	}
	if f.Registry, err = registry.Open(ctx, filepath.Join(dir, "registry")); err != nil {
		return nil, err
	}
	return f, nil
}

// Close closes the registry.
func (f *Fleet) Close() error { return f.Registry.Close() }

// Repo is the fleet's metadata.
func (f *Fleet) Repo() publish.Repo { return repo{f.Registry, nil} }

// Token makes an enrolment token that works once within valid.
func (f *Fleet) Token(ctx context.Context, valid time.Duration, replace bool) (wire.Token, error) {
	return f.token(ctx, identity.TokenRequest{Valid: valid, Replace: replace})
}

// ReplaceToken makes a token by which another machine takes the name of a
// device that is enrolled, that name only. When it is used, all certificates of
// the former machine are revoked.
func (f *Fleet) ReplaceToken(ctx context.Context, device string, valid time.Duration) (wire.Token, error) {
	if _, err := f.Registry.Device(ctx, device); err != nil {
		return wire.Token{}, err
	}
	return f.token(ctx, identity.TokenRequest{Valid: valid, Replace: true, Device: device})
}

func (f *Fleet) token(ctx context.Context, r identity.TokenRequest) (wire.Token, error) {
	root, _, err := f.Repo().Latest(ctx, wire.RoleRoot)
	if err != nil {
		return wire.Token{}, err
	}
	r.URL, r.Root = "https://"+f.Settings.Enroll.Public, wire.NewBlobRef(root).Digest
	return f.Authority.NewToken(ctx, tokens{f.Registry}, r)
}

// Revoke throws a device out: its certificate goes on the revocation list; a
// running hub ends its session.
func (f *Fleet) Revoke(ctx context.Context, device string) error {
	d, err := f.Registry.Device(ctx, device)
	if err != nil {
		return err
	}
	// All of its certificates, but for one that the ledger does not know.
	err = errors.Join(f.Authority.RevokeDevice(device, ""), f.Authority.Revoke(d.Cert.Serial))
	if err != nil {
		return fmt.Errorf("cloud: revoke %s: %w", device, err)
	}
	return f.Registry.RevokeDevice(ctx, device)
}
