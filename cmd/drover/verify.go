package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/ota/bundle"
)

// verify is the verb verify.
func (a *app) verify() *cobra.Command {
	var root string
	c := &cobra.Command{
		Use: "verify FILE", Short: "explain whether a file is what the owner signed", Args: exactly(1),
		Long: `FILE is a release's manifest, a model, or a bundle. The whole chain is followed
and explained: from the root of trust over the roles targets and models to the
manifest and the blobs it names, and to what devices are offered. A link that
does not hold ends with exit code 5.

A bundle carries its whole chain. With --root, a root.json that is trusted, it is
explained without a fleet; so can anybody who has a device.`,
		Example: "  drover verify gate-3.manifest.json\n  drover verify gate.tflite\n  drover verify gate-3.drover --root root.json",
		RunE: func(c *cobra.Command, args []string) error {
			v, err := a.explain(c.Context(), args[0], root)
			if err != nil {
				return err
			}
			if err := a.print(v, func(w io.Writer) { chainText(w, &v, terminal(a.out)) }); err != nil {
				return err
			}
			if !v.OK {
				return fmt.Errorf("%s: %w", args[0], errBroken)
			}
			return nil
		},
	}
	c.Flags().StringVar(&root, "root", "", "for a bundle: begin the chain at this root.json; no fleet is needed")
	return c
}

// explain follows the chain of whatever a file is.
func (a *app) explain(ctx context.Context, path, root string) (v cloud.Verification, err error) {
	file, err := os.Open(path)
	if err != nil {
		return v, err
	}
	defer file.Close()
	begin := make([]byte, 16)
	n, err := file.ReadAt(begin, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return v, err
	}
	if bundle.Is(begin[:n]) {
		return a.verifyBundle(ctx, file, root)
	}
	if root != "" {
		return v, usage("drover verify FILE explains it against the fleet", "%s is no bundle; --root is for bundles", path)
	}
	b, err := readFile(path, wire.MaxBlob)
	if err != nil {
		return v, err
	}
	err = a.withFleet(ctx, func(f *cloud.Fleet) (err error) {
		v, err = f.Verify(ctx, b, time.Now())
		return err
	})
	return v, err
}

// chainText shows each link with a mark.
func chainText(w io.Writer, v *cloud.Verification, colour bool) {
	good, bad := "✓", "✗"
	if colour {
		good, bad = "\x1b[32m✓\x1b[0m", "\x1b[31m✗\x1b[0m"
	}
	for _, l := range v.Links {
		mark := good
		if !l.OK {
			mark = bad
		}
		fmt.Fprintf(w, "%s %-9s  %s\n", mark, l.Name, l.Detail)
	}
}
