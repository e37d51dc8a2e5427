package vision

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/test/tinymodel"
)

// infiltrate puts the hostile program where drover-infer was. What runs
// already stays.
func infiltrate(t *testing.T, program string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", program+".new", "github.com/droverhq/drover/test/hostile")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the hostile program: %v\n%s", err, out)
	}
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
}

// possessed is a model that takes over the program that runs it.
func possessed(t *testing.T, deed string) Model {
	m := model(t, "release/tiny/666", tinymodel.Options{})
	m.Read = func() ([]byte, error) { return []byte("TFL3 deed " + deed + " \n"), nil }
	return m
}

// A device answers by a good model. One candidate after the other takes over
// its own process and does its worst: each is refused by a name that tells what
// it did, and the good model goes on answering.
func TestHostileCandidates(t *testing.T) {
	dir, err := os.MkdirTemp("", "drover-programs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "drover-infer")
	b, err := os.ReadFile(filepath.Join(built, "drover-infer"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{}
	for _, n := range []string{"drover.yaml", "device.key"} {
		secrets[n] = filepath.Join(dir, n)
		// Anybody may read it: only the cage is in the way.
		if err := os.WriteFile(secrets[n], []byte("secret"), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	v, o := startWith(t, program)
	ctx := t.Context()
	if err := v.SetCameras(ctx, []Camera{folderCamera("door", pictures(t, 0, 255))}); err != nil {
		t.Fatal(err)
	}
	if err := v.Activate(ctx, model(t, "release/tiny/1", tinymodel.Options{})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers", func() bool { return o.count("release/tiny/1") > 3 })
	good := v.View().Model.PID
	infiltrate(t, program)
	v.patience = 2 * time.Second

	goesOn := func(t *testing.T) {
		t.Helper()
		n := o.count("release/tiny/1")
		eventually(t, "more answers", func() bool { return o.count("release/tiny/1") > n+3 })
		if m := v.View().Model; m.PID != good || m.Release != "release/tiny/1" {
			t.Errorf("%s answers as process %d, it was %d", m.Release, m.PID, good)
		}
	}
	for _, tc := range []struct {
		deed   string
		reason wire.Reason
		says   string
	}{
		{"socket", wire.ReasonCrash, "failed: operation not permitted"},
		{"read " + secrets["drover.yaml"], wire.ReasonCrash, "drover.yaml: permission denied"},
		{"read " + secrets["device.key"], wire.ReasonCrash, "device.key: permission denied"},
		{"read /proc/1/environ", wire.ReasonCrash, "environ: permission denied"},
		{"exec", wire.ReasonCrash, "its cage forbids"},
		{"ptrace", wire.ReasonCrash, "its cage forbids"},
		{"abort", wire.ReasonCrash, "signal 6"},
		{"trap", wire.ReasonCrash, "the model's own words"},
		{"allocate", wire.ReasonMemory, "out of memory"},
		{"spin", wire.ReasonHang, "no answer in time"},
		{"lie", wire.ReasonCrash, "another contract"},
	} {
		t.Run(strings.Fields(tc.deed)[0]+"-"+filepath.Base(tc.deed), func(t *testing.T) {
			began := time.Now()
			_, err := v.Probe(ctx, possessed(t, tc.deed), tinymodel.Golden(), 1, wire.Budget{})
			var f *Failure
			if !errors.As(err, &f) || f.Reason != tc.reason || !strings.Contains(f.Message, tc.says) {
				t.Errorf("%v\nwanted reason %s and %q", err, tc.reason, tc.says)
			}
			t.Logf("%.1f s: %v", time.Since(began).Seconds(), err)
			goesOn(t)
		})
	}

	// The ring comes only with the frames: the candidate is past its probe and
	// on trial, the good model is kept warm.
	t.Run("ring", func(t *testing.T) {
		if err := v.Activate(ctx, possessed(t, "ring")); err != nil {
			t.Fatal(err)
		}
		said := func() string {
			o.mu.Lock()
			defer o.mu.Unlock()
			return fmt.Sprint(o.events)
		}
		eventually(t, "its end is told", func() bool { return strings.Contains(said(), "hostile:") })
		if seen, err := v.Observe(ctx); err != nil || seen.Restarts == 0 {
			t.Errorf("a trial without a crash: %+v %v", seen, err)
		}
		if err := v.Return(ctx); err != nil {
			t.Fatal(err)
		}
		for _, deed := range []string{"map it writable", "make a read-only map writable", "write", "shrink", "grow", "punch a hole"} {
			if !regexp.MustCompile(regexp.QuoteMeta(deed) + ": (operation not permitted|permission denied|file too large)").MatchString(said()) {
				t.Errorf("nothing of %q in %s", deed, said())
			}
		}
		goesOn(t)
	})
}
