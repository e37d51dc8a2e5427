// Package story runs the built programs as their users do: a fleet folder, a
// hub with its broker (embedded, or a real mosquitto), and real device daemons
// with real children. Each test reads like the sentence it proves.
package story

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/test/programs"
)

var built string // folder of the programs

// hubEnv makes this program the hub of the fleet in that folder, in a process
// of its own that can be killed.
const hubEnv = "DROVER_STORY_HUB"

func TestMain(m *testing.M) {
	cage.Main()
	if dir := os.Getenv(hubEnv); dir != "" {
		if err := serveHub(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	flag.Parse()
	// Stories wait more than they work: two at a time leave a small machine idle.
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("4"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return programs.Run(m, &built, "droverd", "drover-camera", "drover-infer")
}

// serveHub runs a hub until it is told to stop.
func serveHub(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	f, err := cloud.Open(ctx, dir)
	if err != nil {
		return err
	}
	defer f.Close()
	hub, err := cloud.NewHub(ctx, f, cloud.HubOptions{Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	return hub.Run(ctx)
}

// patience bounds every wait; it is far above what a busy machine needs.
const patience = 90 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// freePort finds a port nobody listens on just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// openDir is a folder that children with another uid may read.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-story")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// logFile is a file whose end is shown when the test fails.
func logFile(t *testing.T, part string) *os.File {
	t.Helper()
	f, err := os.CreateTemp("", part+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if b, err := os.ReadFile(f.Name()); err == nil {
				t.Logf("log of %s:\n%s", part, lastLines(string(b), 60))
			}
		}
		f.Close()
		os.Remove(f.Name())
	})
	return f
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
