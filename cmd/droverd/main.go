// droverd is the device daemon: it runs the cameras and the model as child
// processes, takes signed updates over MQTT, and shows a local status page.
package main

import (
	"os"

	"github.com/droverhq/drover/infer/cage"
)

func main() {
	cage.Main() // the launcher stage of a child, if this is one
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
