package cloud

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/ota/trust"
)

// Verification is the chain from the fleet's root to a file, link by link. It
// explains; what a device accepts is decided by ota/trust alone, whose verdict
// on what is published is the last link.
type Verification struct {
	Kind    string `json:"kind"` // manifest, model
	SHA256  string `json:"sha256"`
	Release string `json:"release,omitempty"`
	OK      bool   `json:"ok"`
	Links   []Link `json:"links"`
}

// Link is one step of the chain.
type Link struct {
	Name   string `json:"name"` // file, root, targets, models, manifest, blob …, release, published
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // a sentence for a person
}

// chain collects links and stops looking where nothing hangs on.
type chain struct {
	fleet *Fleet
	now   time.Time
	v     Verification

	modelsVersion int64
	signed        map[string]*metadata.TargetFiles
}

func (c *chain) add(ok bool, name, format string, a ...any) bool {
	c.v.Links = append(c.v.Links, Link{name, ok, fmt.Sprintf(format, a...)})
	c.v.OK = c.v.OK && ok
	return ok
}

// Verify explains whether a file is what the owner of the fleet signed: a
// release's manifest, or a model. A broken link is no error: it stands in the
// answer.
func (f *Fleet) Verify(ctx context.Context, file []byte, now time.Time) (Verification, error) {
	c := &chain{fleet: f, now: now, v: Verification{SHA256: wire.NewBlobRef(file).Digest, OK: true}}
	m, raw, err := c.identify(ctx, file)
	if err != nil {
		return c.v, err
	}
	ok, err := c.metadata(ctx)
	if err != nil || !ok || m == nil {
		return c.v, err
	}
	if !c.manifest(m.Path(), raw) {
		return c.v, nil
	}
	if err := c.blobs(ctx, m); err != nil {
		return c.v, err
	}
	return c.v, errors.Join(c.state(ctx, m.Path()), c.published(ctx))
}

// identify says what the file is and gives the manifest it belongs to.
func (c *chain) identify(ctx context.Context, file []byte) (*wire.Manifest, []byte, error) {
	if text := bytes.TrimSpace(file); len(text) > 0 && text[0] == '{' {
		c.v.Kind = "manifest"
		m, err := wire.DecodeManifest(file)
		if err != nil {
			c.add(false, "file", "looks like a manifest but is none: %v", err)
			return nil, nil, nil
		}
		c.v.Release = m.Path()
		c.add(true, "file", "the manifest of %s, made %s", m.Path(), day(time.Unix(m.Created, 0)))
		return m, file, nil
	}
	c.v.Kind = "model"
	releases, err := c.fleet.Registry.Releases(ctx, "")
	if err != nil {
		return nil, nil, err
	}
	for _, rel := range releases {
		raw, err := c.fleet.Registry.ReadBlob(ctx, rel.Manifest, wire.MaxManifest)
		if err != nil {
			return nil, nil, err
		}
		m, err := wire.DecodeManifest(raw)
		if err != nil {
			return nil, nil, err
		}
		for i := range m.Variants {
			if v := &m.Variants[i]; v.Model.Digest == c.v.SHA256 {
				c.v.Release = m.Path()
				c.add(true, "file", "the model of %s, variant %s, %d bytes", m.Path(), v.Name, len(file))
				return m, raw, nil
			}
		}
	}
	c.add(false, "file", "no release of fleet %s names a model with these bytes (SHA-256 %s)", c.fleet.Settings.Fleet, c.v.SHA256)
	return nil, nil, nil
}

// metadata follows root → targets → models.
func (c *chain) metadata(ctx context.Context) (bool, error) {
	repo := c.fleet.Repo()
	root, ok, err := c.roots(ctx, repo)
	if err != nil || !ok {
		return false, err
	}
	targets, models := new(metadata.Metadata[metadata.TargetsType]), new(metadata.Metadata[metadata.TargetsType])
	for _, step := range []struct {
		role  string
		into  *metadata.Metadata[metadata.TargetsType]
		check func() error
		by    string
	}{
		{wire.RoleTargets, targets, func() error { return root.VerifyDelegate(wire.RoleTargets, targets) }, "root"},
		{wire.RoleModels, models, func() error { return targets.VerifyDelegate(wire.RoleModels, models) }, "targets"},
	} {
		raw, version, err := repo.Latest(ctx, step.role)
		if err != nil {
			return false, err
		}
		if _, err := step.into.FromBytes(raw); err != nil {
			return c.add(false, step.role, "version %d cannot be read: %v", version, err), nil
		}
		if err := step.check(); err != nil {
			return c.add(false, step.role, "version %d is not signed by the keys that %s names: %v", version, step.by, err), nil
		}
		if end := step.into.Signed.Expires; end.Before(c.now) {
			return c.add(false, step.role, "version %d is past its expiry of %s: sign it again", version, day(end)), nil
		}
		c.add(true, step.role, "version %d, signed by the keys that %s names, good until %s", version, step.by, day(step.into.Signed.Expires))
	}
	c.modelsVersion, c.signed = models.Signed.Version, models.Signed.Targets
	return true, nil
}

// roots follows the chain of roots from the first.
func (c *chain) roots(ctx context.Context, repo publish.Repo) (*metadata.Metadata[metadata.RootType], bool, error) {
	_, newest, err := repo.Latest(ctx, wire.RoleRoot)
	if err != nil {
		return nil, false, err
	}
	var root *metadata.Metadata[metadata.RootType]
	var raw []byte
	for v := int64(1); v <= newest; v++ {
		if raw, err = repo.Get(ctx, wire.RoleRoot, v); err != nil {
			return nil, false, err
		}
		next := new(metadata.Metadata[metadata.RootType])
		if _, err := next.FromBytes(raw); err != nil {
			return nil, c.add(false, "root", "version %d cannot be read: %v", v, err), nil
		}
		by := root
		if by == nil {
			by = next
		}
		if err := errors.Join(by.VerifyDelegate(wire.RoleRoot, next), next.VerifyDelegate(wire.RoleRoot, next)); err != nil {
			return nil, c.add(false, "root", "version %d is not signed by its own keys and those of the version before: %v", v, err), nil
		}
		root = next
	}
	if root == nil {
		return nil, false, publish.ErrNoFleet
	}
	if root.Signed.Expires.Before(c.now) {
		return nil, c.add(false, "root", "version %d is past its expiry of %s: rotate it", newest, day(root.Signed.Expires)), nil
	}
	c.add(true, "root", "version %d, signed by its own keys, good until %s, SHA-256 %s…", newest, day(root.Signed.Expires), wire.NewBlobRef(raw).Digest[:16])
	return root, true, nil
}

// manifest compares the manifest's bytes with what models signed.
func (c *chain) manifest(path string, raw []byte) bool {
	target := c.signed[path]
	if target == nil {
		return c.add(false, "manifest", "models does not list %s: it was never signed, or was retired", path)
	}
	ref := wire.NewBlobRef(raw)
	if want := hex.EncodeToString(target.Hashes["sha256"]); want != ref.Digest || target.Length != ref.Size {
		return c.add(false, "manifest", "%s was signed with SHA-256 %s… and %d bytes, this one has %s… and %d: it was changed after signing",
			path, short(want), target.Length, short(ref.Digest), ref.Size)
	}
	return c.add(true, "manifest", "%s, %d bytes, SHA-256 %s… as signed", path, ref.Size, short(ref.Digest))
}

func short(digest string) string { return digest[:min(16, len(digest))] }

// blobs reads what the manifest names; the registry checks digests as it reads.
func (c *chain) blobs(ctx context.Context, m *wire.Manifest) error {
	type named struct {
		name string
		ref  wire.BlobRef
	}
	var all []named
	for i := range m.Variants {
		v := &m.Variants[i]
		all = append(all, named{"model of variant " + v.Name, v.Model}, named{"golden inputs of variant " + v.Name, v.Golden})
		for _, d := range v.Deltas {
			all = append(all, named{"delta to the model of variant " + v.Name + " from " + short(d.Base), d.Blob})
		}
	}
	if m.Report != nil {
		all = append(all, named{"evaluation report", *m.Report})
	}
	for _, b := range all {
		data, err := c.fleet.Registry.ReadBlob(ctx, b.ref.Digest, wire.MaxBlob)
		switch {
		case errors.Is(err, registry.ErrNotFound), errors.Is(err, registry.ErrCorrupt), err == nil && int64(len(data)) != b.ref.Size:
			c.add(false, "blob", "%s is not stored as it was signed: %v", b.name, err)
		case err != nil:
			return err
		default:
			c.add(true, "blob", "%s, %d bytes, SHA-256 %s… as named", b.name, b.ref.Size, short(b.ref.Digest))
		}
	}
	return nil
}

// state says whether the release may still be given out.
func (c *chain) state(ctx context.Context, path string) error {
	rel, err := c.fleet.Registry.Release(ctx, path)
	if errors.Is(err, registry.ErrNotFound) {
		c.add(false, "release", "%s is signed, but this registry does not know it", path)
		return nil
	}
	if err != nil {
		return err
	}
	c.add(rel.State == registry.ReleaseActive, "release", "%s, security epoch %d", rel.State, rel.Epoch)
	return nil
}

// published asks the device's own verifier about what the broker retains.
func (c *chain) published(ctx context.Context) error {
	p, err := publish.Published(ctx, c.fleet.Repo())
	if err != nil {
		return err
	}
	if p.Versions[wire.RoleModels] < c.modelsVersion {
		c.add(true, "published", "not yet: devices see models version %d until the hub runs", p.Versions[wire.RoleModels])
		return nil
	}
	var root []byte
	for _, m := range p.Retained {
		if m.Role == wire.RoleRoot && m.Version == p.Versions[wire.RoleRoot] {
			root = m.Raw
		}
	}
	client, err := trust.Open(trust.Options{Store: new(trust.Memory), Root: root, BuildTime: c.now.Add(-time.Second)})
	if err != nil {
		return err
	}
	for _, m := range p.Retained {
		err = errors.Join(err, client.OfferRole(m.Role, m.Version, m.Raw))
	}
	if err = errors.Join(err, client.OfferCurrent(p.Current), client.Refresh()); err != nil {
		c.add(false, "published", "a device would refuse what is published: %s", strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil
	}
	st := client.Status()
	c.add(st.Fresh, "published", "the device's verifier takes what is published: models version %d, %s", st.Versions[wire.RoleModels], st.Freshness())
	return nil
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
