package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
)

// verify is the verb verify.
func (a *app) verify() *cobra.Command {
	return &cobra.Command{
		Use: "verify FILE", Short: "explain whether a file is what the owner signed", Args: exactly(1),
		Long: `FILE is a release's manifest or a model. The whole chain is followed and
explained: from the root of trust over the roles targets and models to the
manifest and the blobs it names, and to what devices are offered. A link that
does not hold ends with exit code 5.`,
		Example: "  drover verify gate-3.manifest.json\n  drover verify gate.tflite",
		RunE: func(c *cobra.Command, args []string) error {
			b, err := readFile(args[0], wire.MaxBlob)
			if err != nil {
				return err
			}
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				v, err := f.Verify(c.Context(), b, time.Now())
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
			})
		},
	}
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
