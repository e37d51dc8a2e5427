package trust

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/droverhq/drover/agent/wire"
)

// Refresh verifies what was offered. It answers nil when something was
// accepted or nothing is new; an error with a *MissingError in it when it
// waits for more; otherwise the refusals of what was offered, joined. Whatever
// it answers, what was trusted before is still trusted, unless a new root
// ended that. When the store fails it is ErrStore and nothing has changed.
func (c *Client) Refresh() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	rootErr := c.rotate()
	if errors.Is(rootErr, ErrStore) {
		return rootErr
	}
	errs := []error{rootErr}
	for _, k := range c.candidates() {
		if k.refused == c.root.Version {
			continue
		}
		err := c.try(k)
		switch {
		case err == nil:
			if rootErr != nil {
				c.log.Warn("trust: offered root refused", "error", rootErr)
			}
			return nil
		case errors.Is(err, ErrStore):
			return err
		case errors.Is(err, errNothingNew):
			c.offers.drop(k)
			continue
		}
		errs = append(errs, err)
	}
	return joined(errs)
}

// joined puts first what is waited for, and of that what a verified snapshot
// lists; a root that may not exist comes after it.
func joined(errs []error) error {
	rank := func(err error) int {
		switch m, missing := errors.AsType[*MissingError](err); {
		case missing && m.Role != wire.RoleRoot:
			return 0
		case missing:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(errs, func(a, b error) int { return rank(a) - rank(b) })
	errs = slices.CompactFunc(errs, func(a, b error) bool { return a != nil && b != nil && a.Error() == b.Error() })
	return errors.Join(errs...)
}

// candidates are those offered, and what the store still had when it did not
// make a world of its own.
func (c *Client) candidates() []candidate {
	ts, snap := c.kept[metadata.TIMESTAMP], c.kept[metadata.SNAPSHOT]
	if c.world == nil && ts != nil && snap != nil {
		if h, err := screen(metadata.TIMESTAMP, ts); err == nil {
			c.offers.addCurrent(candidate{timestamp: ts, snapshot: snap, version: h.Version})
			delete(c.kept, metadata.TIMESTAMP)
			delete(c.kept, metadata.SNAPSHOT)
		}
	}
	return c.offers.newestFirst()
}

// try verifies one candidate and, if it holds, makes it the world.
func (c *Client) try(k candidate) error {
	if least := c.floor.Versions[metadata.ROOT]; c.root.Version < least {
		return &MissingError{Role: wire.RoleRoot, Version: c.root.Version + 1}
	}
	b := builder{root: c.raw, ref: c.now(), floor: c.floor, current: c.versionOf(metadata.TIMESTAMP), find: c.find, wanted: c.offers.want, log: c.log}
	w, err := b.build(k.timestamp, k.snapshot)
	if err != nil {
		return c.refuseCandidate(k, err)
	}
	next := c.floor.clone()
	next.raise(w.versions)
	next.raise(map[string]int64{metadata.ROOT: c.root.Version})
	c.clock.verified(&next, w.versions[metadata.TIMESTAMP])
	if err := c.save(c.raw, w.raw, next); err != nil {
		return err
	}
	c.world, c.floor, c.kept = w, next, nil
	c.offers.settle(w.versions)
	return nil
}

// refuseCandidate decides whether a candidate may be tried again.
func (c *Client) refuseCandidate(k candidate, err error) error {
	if _, missing := errors.AsType[*MissingError](err); missing || errors.Is(err, errNothingNew) {
		return err
	}
	if errors.Is(err, ErrSignature) && c.offers.rootGap(c.root.Version) {
		return &MissingError{Role: wire.RoleRoot, Version: c.root.Version + 1}
	}
	if errors.Is(err, ErrDigest) && len(c.offers.wanted) > 0 && c.waits(k) {
		return err // a part was wrong, not the candidate
	}
	c.offers.setRefused(k, c.root.Version)
	return err
}

// waits says whether timestamp and snapshot of a candidate fit each other, so
// that a digest that differs is that of another part.
func (c *Client) waits(k candidate) bool {
	t, err := screen(metadata.TIMESTAMP, k.timestamp)
	return err == nil && t.Meta[metadata.SNAPSHOT+".json"].digest() == digestOf(k.snapshot)
}

// find looks for a role where it may be: in the trusted world, in what the
// store had, among the offers.
func (c *Client) find(role string, w want) ([]byte, error) {
	if c.world != nil && digestOf(c.world.raw[role]) == w.digest() {
		return c.world.raw[role], nil
	}
	if raw, err := c.fromKept(role, w); err == nil {
		return raw, nil
	}
	return c.offers.find(role, w)
}

// rotate follows the chain of roots as far as it was offered and saves the
// last. A refusal is returned, but what was reached before it stays.
func (c *Client) rotate() error {
	tm, err := trustedmetadata.New(c.raw)
	if err != nil {
		return fmt.Errorf("internal error: trust: the trusted root is not: %w", err)
	}
	raw, fl, refused := c.raw, c.floor.clone(), error(nil)
	for range MaxRotations {
		before := tm.Root.Signed
		next, err := c.nextRoot(tm)
		refused = errors.Join(refused, err)
		if next == nil {
			break
		}
		raw = next
		fl.forget(lost(&before, &tm.Root.Signed))
	}
	if tm.Root.Signed.Version == c.root.Version {
		return refused
	}
	fl.raise(map[string]int64{metadata.ROOT: tm.Root.Signed.Version})
	return errors.Join(refused, c.adopt(raw, &tm.Root.Signed, fl))
}

// nextRoot tries the offers of the next version; nil when none holds.
func (c *Client) nextRoot(tm *trustedmetadata.TrustedMetadata) (raw []byte, refused error) {
	version := tm.Root.Signed.Version + 1
	for _, f := range c.offers.roots[version] {
		before := tm.Root
		_, err := tm.UpdateRoot(f.raw)
		if err == nil {
			if err = checkRoot(&tm.Root.Signed); err == nil {
				return f.raw, nil
			}
			tm.Root = before
			refused = errors.Join(refused, err)
			continue
		}
		refused = errors.Join(refused, refuse(kindOf(err), "root version %d: %v; it must be signed by enough keys of version %d and by enough of its own", version, err, version-1))
	}
	delete(c.offers.roots, version)
	return nil, refused
}

// adopt makes a root the trusted one and keeps of the world what still holds
// under it.
func (c *Client) adopt(raw []byte, root *metadata.RootType, fl floor) error {
	files := c.kept
	if c.world != nil {
		files = c.world.raw
	}
	if err := c.save(raw, files, fl); err != nil {
		return err
	}
	c.root, c.raw, c.floor, c.kept = root, raw, fl, map[string][]byte{}
	maps.Copy(c.kept, files)
	c.offers.forgetRoots(root.Version)
	c.revive()
	if c.world != nil {
		c.kept = nil
	}
	return nil
}

// save writes everything in one go.
func (c *Client) save(root []byte, files map[string][]byte, fl floor) error {
	all := map[string][]byte{}
	maps.Copy(all, files)
	all[metadata.ROOT] = root
	if err := c.store.SaveTrust(all, fl.encode()); err != nil {
		return fmt.Errorf("trust: save: %w: %w", ErrStore, err)
	}
	return nil
}
