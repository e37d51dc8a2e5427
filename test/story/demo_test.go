package story

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/test/programs"
)

const fashion = "/usr/share/datasets/fashion-mnist"

// demo runs the README's demo in a folder of its own.
func demo(t *testing.T) (cmd *exec.Cmd, out *bytes.Buffer) {
	t.Helper()
	if testing.Short() {
		t.Skip("the demo trains two models")
	}
	if _, err := os.Stat(fashion); err != nil {
		t.Skipf("the demo's pictures are not here (Debian package dataset-fashion-mnist): %v", err)
	}
	dir := built
	if _, err := os.Stat(filepath.Join(dir, "drover")); err != nil {
		var remove func()
		if dir, remove, err = programs.Folder("drover", "droverd", "drover-camera", "drover-infer"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(remove)
	}
	out = new(bytes.Buffer)
	cmd = exec.Command(filepath.Join(dir, "drover"), "up", "--demo", "--once", "--dir", filepath.Join(openDir(t), "demo"), "--data", fashion)
	cmd.Stdout, cmd.Stderr = out, t.Output()
	return cmd, out
}

// The demo of the README does all it promises, and sums it up in one line.
func TestTheDemoTellsItsStory(t *testing.T) {
	cmd, out := demo(t)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var sum struct {
		Frames     uint64
		Updates    int
		Refused    []string
		AccuracyV1 float64 `json:"accuracy_v1"`
		AccuracyV2 float64 `json:"accuracy_v2"`
		StatusURL  string  `json:"status_url"`
	}
	lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], &sum); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if sum.Frames == 0 || sum.Updates != 2 || len(sum.Refused) != 2 || sum.Refused[0] != "signature" || sum.Refused[1] != "golden" ||
		sum.AccuracyV1 < 0.87 || sum.AccuracyV2 <= sum.AccuracyV1 || sum.StatusURL == "" {
		t.Fatalf("%+v", sum)
	}
}

// A demo that is interrupted does not claim success.
func TestAnInterruptedDemoIsNoSuccess(t *testing.T) {
	cmd, out := demo(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second) // somewhere in the story, wherever that is
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || out.Len() > 0 {
		t.Fatalf("ended with %v and %q", err, out)
	}
}
