package publish

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
)

// KeyChange is what happens to the keys of one role.
type KeyChange struct {
	Role      string
	Add       []ed25519.PublicKey
	Remove    []string // key ids
	Threshold int      // 0: as it is
	// Distrust says that the removed keys may have been misused: releases that
	// nobody else ever signed are left out, but for those in Keep (paths).
	Distrust bool
	Keep     []string
}

// publicOnly is a signer that cannot sign: only its public half is asked for.
type publicOnly struct{ pub crypto.PublicKey }

// Public implements crypto.Signer.
func (p publicOnly) Public() crypto.PublicKey { return p.pub }

// Sign implements crypto.Signer.
func (p publicOnly) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, fail(ErrKeys, "only the public half of the key is here")
}

// DraftKeys drafts a change of keys: the next root, or for models and rollouts
// the next targets, and the next version of what must be signed anew because
// of it. Rollouts, snapshot and timestamp the hub signs anew by itself.
func DraftKeys(ctx context.Context, repo Repo, c KeyChange, now time.Time) (*Draft, error) {
	if !slices.Contains(allRoles(), c.Role) {
		return nil, fail(ErrInvalid, "there is no role %q", c.Role)
	}
	from := namer(c.Role)
	d, doc, err := newDraft(ctx, repo, from, now)
	if err != nil {
		return nil, err
	}
	if err := doc.changeKeys(c); err != nil {
		return nil, err
	}
	if err := doc.seal(); err != nil {
		return nil, err
	}
	if err := d.checkApart(c.Role); err != nil {
		return nil, err
	}
	if c.Role == wire.RoleTargets || c.Role == wire.RoleModels {
		err = d.follow(ctx, repo, c, now)
	}
	return d, err
}

// DraftRenewal drafts the next version of root, targets or models with the same
// content and a new expiry.
func DraftRenewal(ctx context.Context, repo Repo, role string, now time.Time) (*Draft, error) {
	if Online(role) || !slices.Contains(allRoles(), role) {
		return nil, fail(ErrInvalid, "%s is not renewed by its owner; the hub does that", role)
	}
	d, doc, err := newDraft(ctx, repo, role, now)
	if err != nil {
		return nil, err
	}
	return d, doc.seal()
}

// DraftRelease drafts the next version of models with a release more. ErrExists
// when it is signed already.
func DraftRelease(ctx context.Context, repo Repo, manifest []byte, now time.Time) (*Draft, error) {
	m, err := wire.DecodeManifest(manifest)
	if err != nil {
		return nil, fail(ErrInvalid, "release: %v", err)
	}
	d, doc, err := newDraft(ctx, repo, wire.RoleModels, now)
	if err != nil {
		return nil, err
	}
	if doc.targets.Signed.Targets[m.Path()] != nil {
		return nil, fail(ErrExists, "%s is signed", m.Path())
	}
	doc.targets.Signed.Targets[m.Path()] = targetOf(manifest)
	return d, doc.seal()
}

// newDraft begins a draft with the next version of one role, unsealed.
func newDraft(ctx context.Context, repo Repo, role string, now time.Time) (*Draft, *document, error) {
	d := &Draft{base: map[string]*document{}}
	for _, r := range []string{wire.RoleRoot, wire.RoleTargets, role} {
		if d.base[r] != nil {
			continue
		}
		if err := d.build(ctx, repo, r); err != nil {
			return nil, nil, err
		}
	}
	var err error
	if d.Fleet, err = d.base[wire.RoleRoot].fleet(); err != nil {
		return nil, nil, err
	}
	doc, err := d.next(role, now)
	return d, doc, err
}

// build reads what the draft builds on.
func (d *Draft) build(ctx context.Context, repo Repo, role string) error {
	raw, version, err := repo.Latest(ctx, role)
	if err != nil {
		return fail(err, "read %s", role)
	}
	if version == 0 {
		return fail(ErrNoFleet, "there is no %s; make a fleet with drover init", role)
	}
	d.base[role], err = parseDocument(role, raw)
	return err
}

// next puts the next version of a role into the draft, unsigned.
func (d *Draft) next(role string, now time.Time) (*document, error) {
	raw, err := d.base[role].bytes()
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(role, raw)
	if err != nil {
		return nil, err
	}
	doc.sigs = nil
	if doc.root != nil {
		doc.root.Signed.Version++
		doc.root.Signed.Expires = ends(role, now)
	} else {
		doc.targets.Signed.Version++
		doc.targets.Signed.Expires = ends(role, now)
	}
	d.docs = append(d.docs, doc)
	return doc, doc.seal()
}

// changeKeys carries out a change in the document that names the keys.
func (d *document) changeKeys(c KeyChange) error {
	var keys map[string]*metadata.Key
	var ids *[]string
	var need *int
	if d.root != nil {
		r := d.root.Signed.Roles[c.Role]
		if r == nil {
			return fail(ErrInvalid, "root names no keys of %s", c.Role)
		}
		keys, ids, need = d.root.Signed.Keys, &r.KeyIDs, &r.Threshold
	} else {
		r, err := delegation(&d.targets.Signed, c.Role)
		if err != nil {
			return err
		}
		keys, ids, need = d.targets.Signed.Delegations.Keys, &r.KeyIDs, &r.Threshold
	}
	before := slices.Clone(*ids)
	for _, id := range c.Remove {
		if !slices.Contains(*ids, id) {
			return fail(ErrKeys, "key %s is none of %s, which has %s", ShortID(id), c.Role, shortIDs(*ids))
		}
		*ids = slices.DeleteFunc(*ids, func(s string) bool { return s == id })
	}
	for _, pub := range c.Add {
		more, id, err := tufKeys(c.Role, []crypto.Signer{publicOnly{pub}})
		if err != nil {
			return err
		}
		if slices.Contains(*ids, id[0]) || slices.Contains(before, id[0]) {
			return fail(ErrExists, "key %s is one of %s already", ShortID(id[0]), c.Role)
		}
		maps.Copy(keys, more)
		*ids = append(*ids, id[0])
	}
	was := *need
	if c.Threshold != 0 {
		*need = c.Threshold
	}
	if *need < 1 || len(*ids) < *need {
		return fail(ErrKeys, "%s would have %d keys and a threshold of %d; a key that goes needs one that comes, or a lower threshold", c.Role, len(*ids), *need)
	}
	if slices.Equal(before, *ids) && was == *need {
		return fail(ErrInvalid, "nothing changes for %s", c.Role)
	}
	if d.root != nil {
		dropUnused(&d.root.Signed)
	} else {
		dropUnnamed(d.targets.Signed.Delegations)
	}
	return nil
}

// dropUnnamed removes keys that no delegation names any more.
func dropUnnamed(d *metadata.Delegations) {
	for id := range d.Keys {
		if !slices.ContainsFunc(d.Roles, func(r metadata.DelegatedRole) bool { return slices.Contains(r.KeyIDs, id) }) {
			delete(d.Keys, id)
		}
	}
}

// checkApart refuses a key that serves a role of the hub and one of the owner.
func (d *Draft) checkApart(changed string) error {
	where := map[string]string{}
	for _, role := range allRoles() {
		raw, err := d.find(namer(role)).bytes()
		if err != nil {
			return err
		}
		k, err := ringOf(raw, role)
		if err != nil {
			return err
		}
		for _, id := range k.ids {
			if other, ok := where[id]; ok && Online(role) != Online(other) {
				return fail(ErrKeys, "key %s would serve %s and %s, of which the hub holds one and must not hold the other", ShortID(id), other, role)
			} else if ok && (role == changed || other == changed) && (role == wire.RoleRoot || other == wire.RoleRoot) {
				return fail(ErrKeys, "key %s would serve %s and %s; a key of root serves nothing else", ShortID(id), other, role)
			}
			where[id] = role
		}
	}
	return nil
}

// follow signs targets or models anew where the new keys have not signed them
// already.
func (d *Draft) follow(ctx context.Context, repo Repo, c KeyChange, now time.Time) error {
	if d.base[c.Role] == nil {
		if err := d.build(ctx, repo, c.Role); err != nil {
			return err
		}
	}
	raw, err := d.find(namer(c.Role)).bytes()
	if err != nil {
		return err
	}
	k, err := ringOf(raw, c.Role)
	if err != nil {
		return err
	}
	var gone []string
	if c.Distrust && c.Role == wire.RoleModels {
		if gone, err = d.onlyBy(ctx, repo, c); err != nil {
			return err
		}
	}
	was := d.base[c.Role]
	if len(k.signedBy(was.payload, was.sigs)) >= k.threshold && len(gone) == 0 {
		return nil
	}
	doc, err := d.next(c.Role, now)
	if err != nil {
		return err
	}
	for _, path := range gone {
		delete(doc.targets.Signed.Targets, path)
	}
	return doc.seal()
}

// onlyBy are the releases that nobody but the removed keys ever signed. Which
// keys counted at the time stands in the targets of the time.
func (d *Draft) onlyBy(ctx context.Context, repo Repo, c KeyChange) ([]string, error) {
	known := map[string]ed25519.PublicKey{}
	for v := d.base[wire.RoleTargets].version; v >= 1; v-- {
		raw, err := repo.Get(ctx, wire.RoleTargets, v)
		if err != nil {
			return nil, fail(err, "read targets version %d", v)
		}
		k, err := ringOf(raw, wire.RoleModels)
		if err != nil {
			return nil, err
		}
		maps.Copy(known, k.keys)
	}
	for _, id := range c.Remove {
		delete(known, id)
	}
	others := keyring{keys: known}
	doubtful := maps.Clone(d.base[wire.RoleModels].targets.Signed.Targets)
	for _, path := range c.Keep {
		if doubtful[path] == nil {
			return nil, fail(ErrUnsigned, "keep %s", path)
		}
		delete(doubtful, path)
	}
	for v := d.base[wire.RoleModels].version; v >= 1 && len(doubtful) > 0; v-- {
		raw, err := repo.Get(ctx, wire.RoleModels, v)
		if err != nil {
			return nil, fail(err, "read models version %d", v)
		}
		doc, err := parseDocument(wire.RoleModels, raw)
		if err != nil {
			return nil, err
		}
		if len(others.signedBy(doc.payload, doc.sigs)) == 0 {
			continue
		}
		for path, t := range doc.targets.Signed.Targets {
			if doubtful[path] != nil && doubtful[path].Equal(*t) {
				delete(doubtful, path)
			}
		}
	}
	return slices.Sorted(maps.Keys(doubtful)), nil
}

// Changes tells people what a draft does, a line each, from its documents.
func (d *Draft) Changes() ([]string, error) {
	var out []string
	for _, doc := range d.docs {
		raw, err := doc.bytes()
		if err != nil {
			return nil, err
		}
		h, err := readHead(raw)
		if err != nil {
			return nil, fail(ErrInvalid, "%s: %v", doc.role, err)
		}
		out = append(out, fmt.Sprintf("%s version %d, good until %s", doc.role, doc.version, h.Expires.Format("2006-01-02")))
		was, err := d.base[doc.role].bytes()
		if err != nil {
			return nil, err
		}
		for _, role := range allRoles() {
			if namer(role) != doc.role {
				continue
			}
			line, err := ringChange(was, raw, role)
			if err != nil {
				return nil, err
			}
			out = append(out, line)
		}
		if doc.role == wire.RoleModels {
			out = append(out, releaseChanges(d.base[doc.role].targets.Signed.Targets, doc.targets.Signed.Targets)...)
		}
	}
	return out, nil
}

func ringChange(was, is []byte, role string) (string, error) {
	before, err := ringOf(was, role)
	if err != nil {
		return "", err
	}
	after, err := ringOf(is, role)
	if err != nil {
		return "", err
	}
	line := fmt.Sprintf("  %s: %d of", role, after.threshold)
	for _, id := range after.ids {
		mark := ""
		if before.keys[id] == nil {
			mark = "+"
		}
		line += " " + mark + ShortID(id)
	}
	for _, id := range before.ids {
		if after.keys[id] == nil {
			line += " -" + ShortID(id)
		}
	}
	if before.threshold != after.threshold {
		line += fmt.Sprintf(" (was %d)", before.threshold)
	}
	return line, nil
}

func releaseChanges(was, is map[string]*metadata.TargetFiles) (out []string) {
	stay := 0
	for _, path := range slices.Sorted(maps.Keys(is)) {
		switch {
		case was[path] == nil:
			out = append(out, fmt.Sprintf("  + %s, manifest sha256 %s", path, refOf(is[path]).Digest))
		case !was[path].Equal(*is[path]):
			out = append(out, fmt.Sprintf("  ! %s becomes sha256 %s", path, refOf(is[path]).Digest))
		default:
			stay++
		}
	}
	for _, path := range slices.Sorted(maps.Keys(was)) {
		if is[path] == nil {
			out = append(out, fmt.Sprintf("  - %s", path))
		}
	}
	return append(out, fmt.Sprintf("  %d releases stay", stay))
}
