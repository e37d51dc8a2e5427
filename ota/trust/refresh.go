package trust

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust/tufcore"
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
		case errors.Is(err, tufcore.ErrSame):
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
		if h, err := policy().Screen(metadata.TIMESTAMP, ts); err == nil {
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
	next.Versions.Raise(w.versions)
	next.Versions.Raise(map[string]int64{metadata.ROOT: c.root.Version})
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
	if _, missing := errors.AsType[*MissingError](err); missing || errors.Is(err, tufcore.ErrSame) {
		return err
	}
	if errors.Is(err, ErrSignature) && (c.more || c.offers.rootGap(c.root.Version)) {
		wait := &MissingError{Role: wire.RoleRoot, Version: c.root.Version + 1}
		if c.patient() {
			return wait
		}
		return errors.Join(wait, err)
	}
	if errors.Is(err, ErrDigest) && len(c.offers.wanted) > 0 && c.waits(k) {
		return err // a part was wrong, not the candidate
	}
	c.offers.setRefused(k, c.root.Version)
	return err
}

// patient says whether a bad signature may still be that of keys which a root
// on its way will name. Roots come within moments of each other; a root ahead
// of the chain that anybody may have made up must not silence a refusal longer.
func (c *Client) patient() bool {
	now := c.clock.boottime()
	if c.gap.root != c.root.Version {
		c.gap.root, c.gap.since = c.root.Version, now
	}
	return now-c.gap.since < rootPatience
}

// waits says whether timestamp and snapshot of a candidate fit each other, so
// that a digest that differs is that of another part.
func (c *Client) waits(k candidate) bool {
	t, err := policy().Screen(metadata.TIMESTAMP, k.timestamp)
	return err == nil && t.Meta[metadata.SNAPSHOT+".json"].Digest() == tufcore.Digest(k.snapshot)
}

// find looks for a role where it may be: in the trusted world, in what the
// store had, among the offers.
func (c *Client) find(role string, w tufcore.Want) ([]byte, error) {
	if c.world != nil && tufcore.Digest(c.world.raw[role]) == w.Digest() {
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
	v, err := tufcore.New(c.raw, c.floor.Versions, policy())
	if err != nil {
		return fmt.Errorf("internal error: trust: the trusted root is not: %w", err)
	}
	raw, fl, refused := c.raw, c.floor.clone(), error(nil)
	c.more = true // roots beyond the limit were not kept
	for range MaxRotations {
		next, lost, err := c.nextRoot(v)
		refused = errors.Join(refused, err)
		if next == nil {
			c.more = false
			break
		}
		raw = next
		fl.forget(lost)
	}
	if v.Root().Version == c.root.Version {
		return refused
	}
	fl.Versions = v.Floor()
	return errors.Join(refused, c.adopt(raw, v.Root(), fl))
}

// nextRoot tries the offers of the next version; nil when none holds.
func (c *Client) nextRoot(v *tufcore.Verifier) (raw []byte, lost tufcore.Lost, refused error) {
	version := v.Root().Version + 1
	for _, f := range c.offers.roots[version] {
		lost, err := v.UpdateRoot(f.raw)
		if err == nil {
			return f.raw, lost, nil
		}
		refused = errors.Join(refused, err)
	}
	delete(c.offers.roots, version)
	return nil, tufcore.Lost{}, refused
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
