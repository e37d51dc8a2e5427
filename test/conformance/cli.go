package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// targetNames is a flag that may be repeated.
type targetNames []string

func (l *targetNames) String() string { return strings.Join(*l, " ") }

func (l *targetNames) Set(v string) error {
	*l = append(*l, v)
	return nil
}

// options are what stands before the verb.
type options struct {
	metadataDir, metadataURL, targetDir, targetURL string
	targets                                        targetNames
}

// run does what args say and gives the exit code: 0 when all of it succeeded,
// else 1.
func run(ctx context.Context, args []string, now func() time.Time, stderr io.Writer) int {
	if err := execute(ctx, args, now, stderr); err != nil {
		fmt.Fprintln(stderr, "conformance:", err)
		return 1
	}
	return 0
}

func execute(ctx context.Context, args []string, now func() time.Time, stderr io.Writer) error {
	var o options
	fs := flag.NewFlagSet("conformance", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&o.metadataDir, "metadata-dir", "", "folder of trusted metadata")
	fs.StringVar(&o.metadataURL, "metadata-url", "", "where the repository has its metadata")
	fs.StringVar(&o.targetDir, "target-dir", "", "folder for downloads")
	fs.StringVar(&o.targetURL, "target-base-url", "", "where the repository has its targets")
	fs.Var(&o.targets, "target-name", "target path to download; may be repeated")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if o.metadataDir == "" {
		return errors.New("--metadata-dir is missing")
	}
	files := folder(o.metadataDir)
	verb, rest := fs.Arg(0), fs.Args()
	if verb == "init" {
		if len(rest) != 2 {
			return errors.New("init: give the file of the trusted root")
		}
		return files.begin(rest[1])
	}
	if len(rest) > 1 {
		return fmt.Errorf("%s: unexpected %q", verb, rest[1:])
	}
	if o.metadataURL == "" {
		return errors.New("--metadata-url is missing")
	}
	c := &client{files: files, metadata: remote(o.metadataURL), targets: remote(o.targetURL), cache: map[string][]byte{}, log: stderr}
	switch verb {
	case "refresh":
		return c.refresh(ctx, now())
	case "download":
		if o.targetURL == "" || o.targetDir == "" || len(o.targets) == 0 {
			return errors.New("download: give --target-name, --target-dir and --target-base-url")
		}
		if err := c.refresh(ctx, now()); err != nil {
			return err
		}
		for _, path := range o.targets {
			if err := c.download(ctx, path, o.targetDir); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("unknown verb %q; there are init, refresh and download", verb)
}

// libcTime is the time by date(1). The suite moves time with faketime, which
// reaches only programs that ask libc; Go asks the kernel.
func libcTime(ctx context.Context) time.Time {
	out, err := exec.CommandContext(ctx, "date", "+%s").Output()
	if err != nil {
		return time.Now()
	}
	s, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil {
		return time.Now()
	}
	return time.Unix(s, 0)
}

// begin makes a trusted root the beginning. Whether it holds is seen at the
// first refresh.
func (f folder) begin(root string) error {
	b, err := os.ReadFile(root)
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if err := f.saveFloor(nil); err != nil {
		return err
	}
	return f.save("root", b)
}
