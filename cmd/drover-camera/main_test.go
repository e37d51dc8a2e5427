package main

import (
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/infer/cage"
)

const asChild = "DROVER_CAMERA_TEST_CHILD"

// The test binary is the child program too: a real process with a real cage.
func TestMain(m *testing.M) {
	cage.Main()
	if os.Getenv(asChild) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}

// command is this program, started as drover-camera.
func command(t *testing.T, args ...string) (*exec.Cmd, *output) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asChild+"=1")
	out := new(output)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out
}

type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
