package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/bundle"
	"github.com/droverhq/drover/ota/trust"
)

// bundleChain follows the chain through a bundle.
type bundleChain struct {
	chain
	file   io.ReaderAt
	bundle *bundle.Bundle
	plans  map[string]*metadata.TargetFiles
}

// VerifyBundle explains whether a bundle is what the owner of a fleet signed,
// from a root.json on that is trusted; no fleet is needed. A broken link is no
// error: it stands in the answer.
func VerifyBundle(ctx context.Context, file io.ReaderAt, size int64, root []byte, now time.Time) (Verification, error) {
	c := &bundleChain{chain: chain{now: now, v: Verification{Kind: "bundle", OK: true}}, file: file}
	err := c.verify(ctx, size, root)
	return c.v, err
}

// VerifyBundle is the function of that name from the fleet's own first root on.
func (f *Fleet) VerifyBundle(ctx context.Context, file io.ReaderAt, size int64, now time.Time) (Verification, error) {
	root, err := f.Repo().Get(ctx, wire.RoleRoot, 1)
	if err != nil {
		return Verification{}, err
	}
	c := &bundleChain{chain: chain{fleet: f, now: now, v: Verification{Kind: "bundle", OK: true}}, file: file}
	err = c.verify(ctx, size, root)
	if err == nil && c.v.OK {
		err = c.state(ctx, c.bundle.Head.Release)
	}
	return c.v, err
}

func (c *bundleChain) verify(ctx context.Context, size int64, root []byte) error {
	b, err := bundle.Read(c.file, size)
	switch {
	case errors.Is(err, bundle.ErrIncomplete), errors.Is(err, bundle.ErrFormat):
		c.add(false, "file", "looks like a bundle but is none that can be used: %v", err)
		return nil
	case err != nil:
		return err
	}
	c.bundle, c.v.Release, c.v.SHA256 = b, b.Head.Release, b.Head.Manifest
	c.add(true, "file", "a bundle with %s, %d bytes, whole; it says it is of fleet %s, made %s", b.Head.Release, size, b.Head.Fleet,
		time.Unix(b.Head.Created, 0).UTC().Format("2006-01-02 15:04 MST"))
	if !c.roles(root) {
		return nil
	}
	if err := c.contents(ctx); err != nil || !c.v.OK {
		return err
	}
	c.openPlans()
	return c.device(root)
}

// roles follows root → targets → models and rollouts inside the bundle.
func (c *bundleChain) roles(trusted []byte) bool {
	root, ok := c.rootChain(trusted)
	if !ok {
		return false
	}
	targets, models, rollouts := newTargets(), newTargets(), newTargets()
	for _, step := range []struct {
		role, by string
		into     *metadata.Metadata[metadata.TargetsType]
		check    func() error
	}{
		{wire.RoleTargets, "root", targets, func() error { return root.VerifyDelegate(wire.RoleTargets, targets) }},
		{wire.RoleModels, "targets", models, func() error { return targets.VerifyDelegate(wire.RoleModels, models) }},
		{wire.RoleRollouts, "targets", rollouts, func() error { return targets.VerifyDelegate(wire.RoleRollouts, rollouts) }},
	} {
		m := c.bundle.Role(step.role)
		if _, err := step.into.FromBytes(m.Raw); err != nil {
			return c.add(false, step.role, "version %d cannot be read: %v", m.Version, err)
		}
		if err := step.check(); err != nil {
			return c.add(false, step.role, "version %d is not signed by the keys that %s names: %v", m.Version, step.by, err)
		}
		if end := step.into.Signed.Expires; end.Before(c.now) {
			return c.add(false, step.role, "version %d is past its expiry of %s: make the bundle anew", m.Version, day(end))
		}
		c.add(true, step.role, "version %d, signed by the keys that %s names, good until %s", m.Version, step.by, day(step.into.Signed.Expires))
	}
	c.signed, c.plans = models.Signed.Targets, rollouts.Signed.Targets
	return true
}

func newTargets() *metadata.Metadata[metadata.TargetsType] {
	return new(metadata.Metadata[metadata.TargetsType])
}

// rootChain follows the bundle's roots from the trusted one on.
func (c *bundleChain) rootChain(trusted []byte) (*metadata.Metadata[metadata.RootType], bool) {
	root := new(metadata.Metadata[metadata.RootType])
	if _, err := root.FromBytes(trusted); err != nil {
		return nil, c.add(false, "root", "what is to be trusted is no root.json: %v", err)
	}
	if err := root.VerifyDelegate(wire.RoleRoot, root); err != nil {
		return nil, c.add(false, "root", "what is to be trusted is not signed by its own keys: %v", err)
	}
	first := root.Signed.Version
	for _, m := range c.bundle.Metadata {
		if m.Role != wire.RoleRoot || m.Version < root.Signed.Version {
			continue
		}
		if m.Version == first {
			if string(m.Raw) != string(trusted) {
				return nil, c.add(false, "root", "version %d is not the one that is trusted: the bundle is of another fleet", m.Version)
			}
			continue
		}
		next := new(metadata.Metadata[metadata.RootType])
		if _, err := next.FromBytes(m.Raw); err != nil {
			return nil, c.add(false, "root", "version %d cannot be read: %v", m.Version, err)
		}
		if err := errors.Join(root.VerifyDelegate(wire.RoleRoot, next), next.VerifyDelegate(wire.RoleRoot, next)); err != nil {
			return nil, c.add(false, "root", "version %d is not signed by its own keys and those of the version before: %v", m.Version, err)
		}
		root = next
	}
	if root.Signed.Expires.Before(c.now) {
		return nil, c.add(false, "root", "version %d is past its expiry of %s", root.Signed.Version, day(root.Signed.Expires))
	}
	return root, c.add(true, "root", "version %d, reached from the trusted version %d, good until %s", root.Signed.Version, first, day(root.Signed.Expires))
}

// contents compares manifest and blobs with what is signed.
func (c *bundleChain) contents(ctx context.Context) error {
	raw, err := c.bundle.ReadBlob(c.file, c.bundle.Head.Manifest, wire.MaxManifest)
	if errors.Is(err, bundle.ErrDigest) {
		c.add(false, "manifest", "%v", err)
		return nil
	}
	if err != nil {
		return err
	}
	if !c.chain.manifest(c.bundle.Head.Release, raw) {
		return nil
	}
	m, err := wire.DecodeManifest(raw)
	if err != nil || m.Path() != c.bundle.Head.Release {
		c.add(false, "manifest", "is not readable as that of %s: %v", c.bundle.Head.Release, err)
		return nil
	}
	if err := c.bundle.Check(ctx, c.file); errors.Is(err, bundle.ErrDigest) {
		c.add(false, "blob", "%v", err)
		return nil
	} else if err != nil {
		return err
	}
	for i := range m.Variants {
		v := &m.Variants[i]
		c.blob("golden inputs of variant "+v.Name, v.Golden)
		carried := c.has(v.Model)
		for _, d := range v.Deltas {
			if c.has(d.Blob) {
				carried = true
				c.blob(fmt.Sprintf("delta of variant %s from model %s…", v.Name, short(d.Base)), d.Blob)
			}
		}
		if c.has(v.Model) || !carried {
			c.blob("model of variant "+v.Name, v.Model)
		}
	}
	return nil
}

func (c *bundleChain) has(ref wire.BlobRef) bool {
	_, size, ok := c.bundle.Blob(ref.Digest)
	return ok && size == ref.Size
}

func (c *bundleChain) blob(what string, ref wire.BlobRef) {
	if !c.has(ref) {
		c.add(false, "blob", "%s is not in the bundle (%d bytes, SHA-256 %s…)", what, ref.Size, short(ref.Digest))
		return
	}
	c.add(true, "blob", "%s, %d bytes, SHA-256 %s… as named", what, ref.Size, short(ref.Digest))
}

// openPlans says whom the signed plans mean.
func (c *bundleChain) openPlans() {
	n := 0
	for _, path := range slices.Sorted(maps.Keys(c.plans)) {
		t := c.plans[path]
		if !strings.HasPrefix(path, wire.RolloutPath("")) || t.Custom == nil {
			continue
		}
		p, err := wire.DecodePlan(*t.Custom)
		if err != nil || p.Release != c.bundle.Head.Release {
			continue
		}
		n++
		c.add(true, "plan", "%s, serial %d, gives it to %s", p.ID, p.Serial, selected(p.Selector))
	}
	if n == 0 {
		c.add(false, "plan", "none gives %s to any device: start a rollout and make the bundle anew", c.bundle.Head.Release)
	}
}

// selected says whom a selector means.
func selected(s wire.Selector) string {
	var parts []string
	if n := len(s.Devices); n > 0 {
		parts = append(parts, fmt.Sprintf("%d listed devices (%s)", n, strings.Join(s.Devices[:min(n, 5)], ", ")))
	}
	for _, k := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, "devices labelled "+k+"="+s.Labels[k])
	}
	switch {
	case s.Threshold >= wire.Whole:
		return "all devices"
	case s.Threshold > 0:
		parts = append(parts, fmt.Sprintf("about %.3g %% of all", 100*float64(s.Threshold)/float64(wire.Whole)))
	}
	return strings.Join(parts, " and ")
}

// device asks the device's own verifier.
func (c *bundleChain) device(root []byte) error {
	client, err := trust.Open(trust.Options{Store: new(trust.Memory), Root: root, BuildTime: c.now.Add(-time.Second)})
	if err != nil {
		return err
	}
	err = offerAll(client, c.bundle)
	st := client.Status()
	if err != nil {
		c.add(false, "device", "a device would refuse it (%s): %s", trust.Reason(err), strings.ReplaceAll(err.Error(), "\n", "; "))
		return nil
	}
	until := time.Unix(c.bundle.Head.Expires, 0).UTC().Format("2006-01-02 15:04 MST")
	c.add(st.Fresh, "device", "the device's verifier takes it: timestamp of %s, %s, good until %s by its own word; one that has seen newer metadata refuses it",
		time.Unix(st.Versions[metadata.TIMESTAMP], 0).UTC().Format("2006-01-02 15:04 MST"), st.Freshness(), until)
	return nil
}

// offerAll offers a bundle's metadata until it is taken or refused; a long chain
// of roots takes several rounds.
func offerAll(client *trust.Client, b *bundle.Bundle) error {
	for {
		root := client.Status().Versions[wire.RoleRoot]
		for _, m := range b.Metadata {
			if err := client.OfferRole(m.Role, m.Version, m.Raw); err != nil {
				return err
			}
		}
		if err := client.OfferCurrent(b.Current); err != nil {
			return err
		}
		err := client.Refresh()
		if _, missing := errors.AsType[*trust.MissingError](err); !missing || client.Status().Versions[wire.RoleRoot] == root {
			return err
		}
	}
}
