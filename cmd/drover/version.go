package main

import (
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cmd/internal/version"
)

// version is the verb version.
func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "print the version", Args: exactly(0), Example: "  drover version",
		RunE: func(*cobra.Command, []string) error {
			answer := map[string]string{"version": version.Version, "go": runtime.Version(), "arch": runtime.GOARCH}
			return a.print(answer, func(w io.Writer) {
				fmt.Fprintf(w, "drover %s (%s, %s)\n", version.Version, runtime.Version(), runtime.GOARCH)
			})
		},
	}
}
