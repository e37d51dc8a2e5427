package main

import (
	"bytes"
	"os/exec"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Every device ends complete and verified whatever gets lost, over a real
// broker; what it costs is for the benchmark to say.
func TestEveryDeviceIsComplete(t *testing.T) {
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	var out bytes.Buffer
	r, err := bench(t.Context(), options{clients: 20, rounds: 1, size: 3_600_000, dir: t.TempDir(), independent: true}, &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	if c := r[clean][0].ratio; c >= 20 {
		t.Errorf("the hub published %.1f copies for 20 devices: nothing was shared", c)
	}
}
