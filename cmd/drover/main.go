// drover is the operator's command line: it makes a fleet, trains, judges,
// registers, signs and rolls out classifiers, watches the devices, and runs the
// hub.
package main

import (
	"os"

	"github.com/droverhq/drover/infer/cage"
)

func main() {
	cage.Main() // the launcher stage of a child, if this is one
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
