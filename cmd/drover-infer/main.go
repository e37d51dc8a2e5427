// Command drover-infer is the child program that runs one model: it takes
// frames or tensors, and gives the model's output. droverd and drover start it
// in a cage and speak infer/host/protocol with it over descriptor 3.
//
// Everything that happens to a model happens on one locked thread (engine).
// Other goroutines only wait: one for messages of the parent, one for each
// ring's event. The program ends when the parent says so or is gone, when it
// has refused its model, or when the parent breaks the protocol.
package main

import "os"

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
