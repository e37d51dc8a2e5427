package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/camera/opencv"
	"github.com/droverhq/drover/cmd/internal/version"
	"github.com/droverhq/drover/infer/cage"
)

// Exit codes, also for people who start the program by hand.
const (
	exitOK    = 0 // told to stop, parent gone, or end of a replay
	exitFault = 1 // the source failed; the fault has been sent
	exitUsage = 2
	exitStuck = 3 // native code did not return; the fault has been sent
)

const usage = `drover-camera is a child program of droverd and is started by it.
To see whether a camera works: drover-camera --probe URL
`

func run(args []string, stdout, stderr io.Writer) int {
	switch {
	case len(args) == 2 && args[0] == "--probe":
		return probe(args[1], stdout, stderr)
	case len(args) == 1 && args[0] == "--version":
		fmt.Fprintf(stdout, "drover-camera %s, OpenCV %s\n", version.Version, opencv.Version())
		return exitOK
	case len(args) != 0:
		fmt.Fprint(stderr, usage)
		return exitUsage
	case !isPacketSocket(ipc.ChildFD):
		fmt.Fprint(stderr, "drover-camera: no parent on descriptor 3. ", usage)
		return exitUsage
	}
	log := slog.New(slog.NewTextHandler(stderr, nil)).With("program", "drover-camera")
	conn, err := ipc.FromFD(ipc.ChildFD)
	if err != nil {
		log.Error("no parent", "error", err)
		return exitUsage
	}
	// Ctrl-C in a terminal reaches every process in it; when to stop is the
	// parent's decision.
	signal.Ignore(syscall.SIGINT)
	code, err := serve(context.Background(), conn, log, seal)
	if err != nil {
		log.Error("camera ends", "error", err)
	}
	return code
}

// isPacketSocket says whether a parent has put its end there.
func isPacketSocket(fd int) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	return err == nil && kind == unix.SOCK_SEQPACKET
}

// seal closes the cage. The libraries are loaded by then: the dynamic loader
// does that before main.
func seal() (ipc.Sealed, error) {
	report, err := cage.Seal(cage.Camera)
	if err != nil {
		return ipc.Sealed{}, err
	}
	return ipc.Sealed{Seccomp: report.Seccomp, Gaps: report.Gaps}, nil
}

// hello makes the first words.
func hello() *ipc.Hello {
	return &ipc.Hello{Program: version.Version, OpenCV: opencv.Version()}
}

// ended says whether an error means that the parent closed its end or died.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET)
}
