// Command drover-camera is the child program of droverd that reads one camera.
// It parses hostile streams, so it runs in a cage of its own: frames leave it
// through a ring in shared memory, words and previews through a socketpair
// (camera/ipc). Started by hand it can only probe a source.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
