package main

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/cmd/internal/version"
	"github.com/droverhq/drover/infer/cage"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // a readable line stands on stderr
	exitUsage = 2
)

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("drover-infer", flag.ContinueOnError)
	flags.SetOutput(stderr)
	printVersion := flags.Bool("version", false, "print the version and exit")
	profile := flags.String("profile", string(cage.Infer), "cage to close before the model comes: infer, or infer-tpu for an external delegate")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if *printVersion {
		fmt.Fprintln(stdout, "drover-infer", version.Version)
		return exitOK
	}
	if p := cage.Profile(*profile); flags.NArg() > 0 || (p != cage.Infer && p != cage.InferTPU) {
		fmt.Fprintf(stderr, "drover-infer: unknown argument or profile (%q, %v)\n", *profile, flags.Args())
		return exitUsage
	}
	if kind, err := unix.GetsockoptInt(ipc.ChildFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_SEQPACKET {
		fmt.Fprintf(stderr, "drover-infer: this is a child program of droverd and drover, which start it with a socket as descriptor %d; use `drover eval` to run a model\n", ipc.ChildFD)
		return exitUsage
	}
	conn, err := ipc.FromFD(ipc.ChildFD)
	if err == nil {
		err = serve(conn, cage.Profile(*profile))
	}
	if err != nil {
		fmt.Fprintln(stderr, "drover-infer:", err)
		return exitError
	}
	return exitOK
}
