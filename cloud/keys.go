package cloud

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
)

// hubCADue is how long before its end the owner is told to replace the hub CA.
const hubCADue = 180 * 24 * time.Hour

// caKey is the file of the key of the certificate authority.
const caKey = "ca.key"

// ErrNoKey says that a role's key is not in the fleet folder: it is kept
// somewhere else.
var ErrNoKey = errors.New("cloud: the key is not here")

// CheckKey says whether the keys of an offline role are here and the passphrase
// opens them: better asked before long work than after it. ErrNoKey,
// publish.ErrPassphrase.
func (f *Fleet) CheckKey(role, passphrase string) error {
	_, err := f.KeyDir(role).Load(role, passphrase)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: role %s, wanted in %s", ErrNoKey, role, f.owner.Path)
	}
	return err
}

// UseKeys says where the owner's keys are, if not in the fleet's own folder.
// Call it before anything else.
func (f *Fleet) UseKeys(dir string) { f.owner.Path = dir }

// KeyDir is the folder of a role's keys.
func (f *Fleet) KeyDir(role string) publish.KeyDir {
	if publish.Online(role) {
		return f.keys
	}
	return f.owner
}

// RootKeyFile is where the key of the certificate authority is.
func (f *Fleet) RootKeyFile() string {
	if f.owner.Path == f.keys.Path {
		return filepath.Join(f.Dir, "ca", caKey)
	}
	return filepath.Join(f.owner.Path, caKey)
}

// RootKey opens the key of the certificate authority: PEM.
func (f *Fleet) RootKey(passphrase string) ([]byte, error) {
	file, err := os.Open(f.RootKeyFile())
	if err != nil {
		return nil, fmt.Errorf("cloud: root key: %w", err)
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, 16<<10))
	if err == nil {
		b, err = publish.Unseal(b, passphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("cloud: root key: %w", err)
	}
	return b, nil
}

// signers loads those keys of a role that may sign it now.
func (f *Fleet) signers(ctx context.Context, role, passphrase string) ([]crypto.Signer, error) {
	keys, err := f.KeyDir(role).Load(role, passphrase)
	if err != nil {
		return nil, err
	}
	return publish.Entitled(ctx, f.Repo(), role, keys)
}

// Sign has the keys that are at hand sign a draft, those in the folder of the
// owner's keys. One that is not there is no error: somebody else has it.
func (f *Fleet) Sign(d *publish.Draft, passphrase string) (added int, err error) {
	return SignDraft(d, f.owner, passphrase)
}

// SignDraft has the keys of a folder sign a draft, without a fleet: on the
// machine of one who holds a key.
func SignDraft(d *publish.Draft, keys publish.KeyDir, passphrase string) (added int, err error) {
	needs, err := d.Needs()
	if err != nil {
		return 0, err
	}
	var tried []string
	for _, n := range needs {
		// Opening a locked key takes a second: only those that have a say.
		if len(n.Missing) == 0 || slices.Contains(tried, n.Role) {
			continue
		}
		tried = append(tried, n.Role)
		signers, err := keys.Load(n.Role, passphrase)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return added, err
		}
		signed, err := d.Sign(signers...)
		added += signed
		if err != nil {
			return added, err
		}
	}
	return added, nil
}

// due tells what only the owner can renew and has to soon; nil if nothing.
func (f *Fleet) due(ctx context.Context, now time.Time) error {
	pending, _, err := publish.Due(ctx, f.Repo(), now)
	if err != nil {
		return err
	}
	var late []string
	for _, r := range pending {
		if !r.Online {
			late = append(late, fmt.Sprintf("%s ends %s (drover keys renew %s)", r.Role, r.Expires.Format("2006-01-02"), r.Role))
		}
	}
	sum, err := f.Authority.Summary()
	if err != nil {
		return err
	}
	if sum.HubCAEnds.Sub(now) < hubCADue {
		late = append(late, fmt.Sprintf("the hub CA ends %s (drover ca rotate)", sum.HubCAEnds.Format("2006-01-02")))
	}
	if late == nil {
		return nil
	}
	return fmt.Errorf("cloud: the owner has to sign again: %s", strings.Join(late, ", "))
}

// signable are those plans whose release models still signs, and the ids of the
// others.
func (f *Fleet) signable(ctx context.Context, plans []wire.Plan) (out []wire.Plan, gone []string, err error) {
	signed, err := publish.Releases(ctx, f.Repo())
	if err != nil {
		return nil, nil, err
	}
	for _, p := range plans {
		if _, ok := signed[p.Release]; ok {
			out = append(out, p)
		} else {
			gone = append(gone, p.ID)
		}
	}
	return out, gone, nil
}

// DraftRelease drafts the signature of a release that is registered (Release
// with Unsigned). publish.ErrExists when it is signed.
func (f *Fleet) DraftRelease(ctx context.Context, path string) (*publish.Draft, error) {
	rel, err := f.Registry.Release(ctx, path)
	if err != nil {
		return nil, err
	}
	raw, err := f.Registry.ReadBlob(ctx, rel.Manifest, wire.MaxManifest)
	if err != nil {
		return nil, err
	}
	return publish.DraftRelease(ctx, f.Repo(), raw, time.Now())
}
