// Conformance is the client that theupdateframework/tuf-conformance drives: its
// command line (init, refresh, download) on drover's verifier, so that anyone
// can run that suite against the code that devices trust. It adds to
// ota/trust/tufcore what a device does not have: HTTP, a folder of metadata
// under the names that the suite reads, and the system's clock.
//
// The same scenarios stand here as Go tests against a repository in this
// process; README.md lists them.
package main

import (
	"context"
	"os"
	"os/signal"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], func() time.Time { return libcTime(ctx) }, os.Stderr)
	stop()
	os.Exit(code)
}
