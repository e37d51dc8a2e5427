// Command fanout measures what it costs a hub to bring one model to many
// devices: `make bench-fanout`.
//
// In one process: a hub's chunk server with its session, and devices with their
// own certificate, MQTT session, verifier, store and fetch, all over a real
// mosquitto. Every device verifies the signed metadata, fetches the manifest,
// the golden inputs and the model, and has the store check the whole. What the
// hub published is counted to the last byte, topics and metadata included, and
// divided by the size of the model.
//
// A round is run in four ways, alternating:
//
//	plain        one publisher sends the chunks once to subscribers that only
//	             check and store them: what a fan-out costs in time
//	clean        the real thing, all at once
//	lossy        10 % of the devices begin late, at moments spread over the first
//	             half of the transfer; 5 % of the chunks that the hub publishes
//	             get lost on their way to the broker
//	independent  as lossy, but it is every device for itself that loses 5 % of
//	             what it should receive. With 200 devices each chunk is then lost
//	             by about ten of them, so no protocol that repairs chunk by
//	             chunk can stay under 2.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fanout:", err)
		os.Exit(1)
	}
}
