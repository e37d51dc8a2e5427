package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every device ends complete and verified whatever gets lost, over a real
// broker; what it costs is for the benchmark to say.
func TestEveryDeviceIsComplete(t *testing.T) {
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	const clients, limit = 20, 20 * time.Second // it ends by itself, and tidies up, before anybody ends it
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var out bytes.Buffer
	dir := t.TempDir()
	r, err := bench(ctx, options{clients: clients, rounds: 1, size: 10*wire.ChunkSize + 7, dir: dir, ways: []way{clean, lossy}, limit: limit}, &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	for w, rs := range r {
		if len(rs) != 1 || rs[0].done != clients || rs[0].ratio < 1 {
			t.Errorf("%s: %+v", w, rs)
		}
	}
	if c := r[clean][0].ratio; c >= clients {
		t.Errorf("the hub published %.1f copies for %d devices: nothing was shared", c, clients)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A round that takes too long ends with an error and leaves nothing behind.
func TestARoundThatTakesTooLong(t *testing.T) {
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	dir := t.TempDir()
	var out bytes.Buffer
	o := options{clients: 3, rounds: 1, size: 100_000, dir: dir, ways: []way{clean}, limit: time.Millisecond}
	if _, err := bench(t.Context(), o, &out); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it ended with %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
