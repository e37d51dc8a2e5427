package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/droverhq/drover/ota/trust/tufcore"
)

const (
	maxRotations = 256       // roots followed in one refresh
	maxTarget    = 512 << 20 // bytes of one target
)

// client is one run: a refresh, and searches on what it trusts then.
type client struct {
	files    folder
	metadata remote
	targets  remote
	log      io.Writer
	cache    map[string][]byte // roles fetched or loaded in this run
	v        *tufcore.Verifier
}

// refresh brings the top-level roles up to date. What was verified before a
// refusal is kept, as the specification has it; a device keeps all or nothing.
func (c *client) refresh(ctx context.Context, now time.Time) error {
	floor, err := c.files.loadFloor()
	if err != nil {
		return err
	}
	if c.v, err = tufcore.New(c.files.load(metadata.ROOT), floor, tufcore.Standard()); err != nil {
		return err
	}
	if err := c.roots(ctx); err != nil {
		return err
	}
	c.v.SetTime(now)
	if err := c.timestamp(ctx); err != nil {
		return err
	}
	if err := c.snapshot(ctx); err != nil {
		return err
	}
	return c.role(ctx, metadata.TARGETS, metadata.ROOT)
}

// keep makes accepted bytes and the floor they raise durable, the floor first.
func (c *client) keep(role string, raw []byte) error {
	if err := c.files.saveFloor(c.v.Floor()); err != nil {
		return err
	}
	return c.files.save(role, raw)
}

func (c *client) roots(ctx context.Context) error {
	for range maxRotations {
		raw, err := c.fetch(ctx, metadata.ROOT, c.v.Root().Version+1, 0)
		if errors.Is(err, errAbsent) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := c.v.UpdateRoot(raw); err != nil {
			return err
		}
		if err := c.keep(metadata.ROOT, raw); err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d roots at once", maxRotations)
}

func (c *client) timestamp(ctx context.Context) error {
	raw, err := c.fetch(ctx, metadata.TIMESTAMP, 0, 0)
	if err != nil {
		return err
	}
	local := c.files.load(metadata.TIMESTAMP)
	var current int64
	if h, err := tufcore.Standard().Screen(metadata.TIMESTAMP, local); err == nil {
		current = h.Version
	}
	err = c.v.UpdateTimestamp(raw, current)
	if errors.Is(err, tufcore.ErrSame) {
		if c.v.UpdateTimestamp(local, 0) == nil {
			return nil
		}
		err = c.v.UpdateTimestamp(raw, 0) // the file is damaged, or signed with keys of before
	}
	if err != nil {
		return err
	}
	return c.keep(metadata.TIMESTAMP, raw)
}

func (c *client) snapshot(ctx context.Context) error {
	if c.v.UpdateSnapshot(c.files.load(metadata.SNAPSHOT)) == nil {
		return c.files.saveFloor(c.v.Floor())
	}
	w, _ := c.v.Timestamp().Of(metadata.SNAPSHOT)
	raw, err := c.fetch(ctx, metadata.SNAPSHOT, w.Version, w.Length)
	if err != nil {
		return err
	}
	if err := c.v.UpdateSnapshot(raw); err != nil {
		return err
	}
	return c.keep(metadata.SNAPSHOT, raw)
}

// role brings a targets role as another delegates it. Its bytes are fetched
// once; whether this delegator vouches for them is verified each time.
func (c *client) role(ctx context.Context, role, delegator string) error {
	if raw := c.cache[role]; raw != nil {
		return c.v.UpdateTargets(role, delegator, raw)
	}
	if raw := c.files.load(role); c.v.UpdateTargets(role, delegator, raw) == nil {
		c.cache[role] = raw
		return nil
	}
	w, ok := c.v.Snapshot().Of(role)
	if !ok {
		return fmt.Errorf("the snapshot does not list %q", role)
	}
	raw, err := c.fetch(ctx, role, w.Version, w.Length)
	if err != nil {
		return err
	}
	if err := c.v.UpdateTargets(role, delegator, raw); err != nil {
		return err
	}
	c.cache[role] = raw
	return c.keep(role, raw)
}

// fetch gets a role's metadata; length 0 means that nobody said how long it is.
func (c *client) fetch(ctx context.Context, role string, version, length int64) ([]byte, error) {
	limit := int64(tufcore.Standard().MaxBytes(role))
	if length > 0 {
		limit = min(limit, length)
	}
	name := document(role)
	if role == metadata.ROOT || role != metadata.TIMESTAMP && c.v.Root().ConsistentSnapshot {
		name = strconv.FormatInt(version, 10) + "." + name
	}
	return c.metadata.get(ctx, name, limit)
}

// download looks for a target and stores it in dir, unless it is there.
func (c *client) download(ctx context.Context, target, dir string) error {
	f, err := c.v.Find(target, func(role, delegator string) error { return c.role(ctx, role, delegator) })
	if err != nil {
		return err
	}
	file := filepath.Join(dir, quoted(target))
	if b, err := os.ReadFile(file); err == nil && tufcore.CheckTarget(f, b) == nil {
		fmt.Fprintf(c.log, "conformance: %s is there already\n", target)
		return nil
	}
	if f.Length > maxTarget {
		return fmt.Errorf("target %q has %d bytes, allowed are %d", target, f.Length, maxTarget)
	}
	b, err := c.targets.get(ctx, c.address(target, f), f.Length)
	if err != nil {
		return err
	}
	if err := tufcore.CheckTarget(f, b); err != nil {
		return fmt.Errorf("target %q: %w", target, err)
	}
	return replace(file, b)
}

// address is where the repository has a target: under its digest, where
// snapshots are consistent.
func (c *client) address(target string, f *metadata.TargetFiles) string {
	dir, base := path.Split(target)
	parts := strings.Split(strings.TrimSuffix(dir, "/"), "/")
	for i, p := range parts {
		parts[i] = quoted(p)
	}
	prefix := ""
	if dir != "" {
		prefix = strings.Join(parts, "/") + "/"
	}
	if c.v.Root().ConsistentSnapshot {
		for _, name := range []string{"sha256", "sha512"} {
			if h, ok := f.Hashes[name]; ok {
				return prefix + h.String() + "." + quoted(base)
			}
		}
	}
	return prefix + quoted(base)
}
