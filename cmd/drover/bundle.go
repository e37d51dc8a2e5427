package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/bundle"
)

// bundleFlags are the flags of bundle.
type bundleFlags struct {
	out, base string
	valid     time.Duration
	start     bool
}

// bundle is the verb bundle.
func (a *app) bundle() *cobra.Command {
	var f bundleFlags
	c := &cobra.Command{
		Use: "bundle RELEASE", Short: "write a release into one file, for devices without a network", Args: exactly(1),
		Long: `Writes one file with all that a device needs to take a release (NAME@VERSION, or
its path release/NAME/VERSION): the fleet's signed metadata, the manifest, golden
inputs, deltas and models. Dropped into the inbox folder of a device, or brought
on a USB stick, it is verified like what comes over the network; an update takes
the same course. Names of bundles end in ` + bundle.Ext + `.

A device takes a release because a plan says so: an open rollout must give it
out. --start begins one, to all devices, where there is none.

A bundle is good for as long as --valid says, and at most until the first of the
fleet's metadata ends. Whoever holds the file can keep a device that sees nothing
else at this state for that long. Devices that have seen newer metadata refuse it.

With --base the bundle holds the deltas from that release in place of the models:
small, and of no use to devices that run anything else.`,
		Example: "  drover bundle gate@3 --out /media/stick/gate-3.drover\n  drover bundle gate@3 --base gate@2 --valid 24h",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(fleet *cloud.Fleet) error { return a.runBundle(c.Context(), fleet, args[0], &f) })
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.out, "out", "", "the file (default: NAME-VERSION"+bundle.Ext+")")
	fl.StringVar(&f.base, "base", "", "the release that the devices run: deltas from it in place of the models")
	fl.DurationVar(&f.valid, "valid", cloud.DefaultCarry, fmt.Sprintf("how long it is good, 1m to %v", publish.MaxCarry))
	fl.BoolVar(&f.start, "start", false, "begin a rollout to all devices where no open one gives out the release")
	return c
}

func (a *app) runBundle(ctx context.Context, fleet *cloud.Fleet, ref string, f *bundleFlags) error {
	release := cloud.ReleaseOf(ref)
	model, version, err := wire.ParseReleasePath(release)
	switch {
	case err != nil:
		return usage("drover bundle gate@3", "%q is no release: NAME@VERSION", ref)
	case f.valid < time.Minute || f.valid > publish.MaxCarry:
		return usage("", "--valid %v: wanted 1m to %v", f.valid, publish.MaxCarry)
	}
	if f.out == "" {
		f.out = fmt.Sprintf("%s-%d%s", model, version, bundle.Ext)
	}
	if !strings.HasSuffix(f.out, bundle.Ext) {
		a.note("devices look at files whose names end in %s only", bundle.Ext)
	}
	o := cloud.BundleOptions{Release: release, Valid: f.valid, Now: time.Now()}
	if f.base != "" {
		o.Base = cloud.ReleaseOf(f.base)
	}
	b, err := fleet.Bundle(ctx, o)
	if errors.Is(err, cloud.ErrNoPlan) && f.start {
		ro, startErr := fleet.StartRollout(ctx, cloud.RolloutOptions{Release: release})
		if startErr != nil {
			return startErr
		}
		a.note("rollout %s has begun: %s to all devices", ro.ID, ro.Release)
		b, err = fleet.Bundle(ctx, o)
	}
	if err != nil {
		return err
	}
	if err := writeBundle(f.out, b); err != nil {
		return err
	}
	return a.print(b, func(w io.Writer) { bundleText(w, b, f.out, o.Now) })
}

// writeBundle replaces a file as a whole.
func writeBundle(path string, b *cloud.Bundle) error {
	file, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)), renameio.WithPermissions(0o644))
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer file.Cleanup() //nolint:errcheck // what failed is told below
	if _, err := b.WriteTo(file); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func bundleText(w io.Writer, b *cloud.Bundle, path string, now time.Time) {
	fmt.Fprintf(w, "%s is written: %s, %s\n\n", path, b.Head.Release, size(b.Head.Size))
	var plans []string
	for _, p := range b.Plans {
		plans = append(plans, fmt.Sprintf("%s: %s", p.ID, selectorText(p.Selector)))
	}
	pairs(w, "  plan", strings.Join(plans, "; "), "  blobs", fmt.Sprint(b.Blobs),
		"  good until", fmt.Sprintf("%s (for %v)", b.Expires.UTC().Format("2006-01-02 15:04 MST"), b.Expires.Sub(now).Round(time.Minute)))
	fmt.Fprintf(w, "\nnext: copy it into the inbox of a device; drover verify %s explains it\n", path)
}

// verifyBundle explains a bundle, against the fleet or a root.json given.
func (a *app) verifyBundle(ctx context.Context, file *os.File, rootFile string) (cloud.Verification, error) {
	info, err := file.Stat()
	if err != nil {
		return cloud.Verification{}, err
	}
	if rootFile != "" {
		root, err := readFile(rootFile, wire.MaxRoot)
		if err != nil {
			return cloud.Verification{}, err
		}
		return cloud.VerifyBundle(ctx, file, info.Size(), root, time.Now())
	}
	var v cloud.Verification
	err = a.withFleet(ctx, func(f *cloud.Fleet) (err error) {
		v, err = f.VerifyBundle(ctx, file, info.Size(), time.Now())
		return err
	})
	return v, err
}
