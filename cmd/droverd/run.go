package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/droverhq/drover/agent"
	"github.com/droverhq/drover/agent/config"
	"github.com/droverhq/drover/cmd/internal/version"
)

// Exit codes, also in the usage text.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 3
)

const usage = `droverd runs the cameras and the model of one device and takes signed updates.

  droverd --config FILE            run
  droverd --config FILE --check    read the configuration, say what is wrong, exit
  droverd --version

To make a device a member of a fleet, put the token that "drover enroll" prints
into the file "enrolment-token" in the state folder.
SIGHUP, or a change of the file, reloads the configuration.

exit codes: 0 stopped in order · 1 cannot run · 2 wrong usage · 3 bad configuration
`

func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("droverd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage) }
	path := fs.String("config", "/etc/drover/drover.yaml", "configuration file")
	check := fs.Bool("check", false, "check the configuration and exit")
	showVersion := fs.Bool("version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitOK
		}
		return exitUsage
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(stderr, "droverd: unexpected argument %q\n%s", fs.Arg(0), usage)
		return exitUsage
	}
	if *showVersion {
		fmt.Fprintln(stdout, "droverd", version.Version)
		return exitOK
	}
	if *check {
		if _, err := config.Load(*path); err != nil {
			fmt.Fprintln(stderr, "droverd:", err)
			return exitConfig
		}
		fmt.Fprintln(stdout, "ok")
		return exitOK
	}
	return serve(*path, stderr)
}

func serve(path string, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	level := new(slog.LevelVar)
	opts := agent.Options{
		Path: path, Version: version.Version, BuildTime: version.Time(), Level: level,
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
		Reload: hangups(ctx),
	}
	err := agent.Run(ctx, opts)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, config.ErrConfig):
		fmt.Fprintln(stderr, "droverd:", err)
		return exitConfig
	}
	fmt.Fprintln(stderr, "droverd:", err)
	return exitFailed
}

// hangups turns SIGHUP into a request to reload.
func hangups(ctx context.Context) <-chan struct{} {
	signals, out := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		defer signal.Stop(signals)
		for {
			select {
			case <-signals:
				select {
				case out <- struct{}{}:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}
