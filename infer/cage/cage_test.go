package cage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// inCage runs probe in a cage.
func inCage(t *testing.T, o Options, paths ...string) probed {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	o.Program, o.Stderr = self, &stderr
	o.Args = append([]string{string(o.Profile)}, paths...)
	o.Env = []string{probeEnv + "=1", "GORACE=log_path=stderr"}
	cmd, err := Command(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	var p probed
	if err := json.Unmarshal(stderr.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	if p.SealError != "" {
		t.Fatal(p.SealError)
	}
	return p
}

// needsAll skips where this system cannot enforce everything. What root alone
// can do, which is another uid, is left out where the tests do not run as root.
func needsAll(t *testing.T, p probed) {
	t.Helper()
	gaps := p.Report.Gaps
	if os.Getuid() != 0 {
		if len(gaps) == 0 || !strings.Contains(gaps[0], "not started as root") {
			t.Errorf("the gap is not reported: %q", gaps)
			return
		}
		gaps = gaps[1:]
	}
	if len(gaps) > 0 || !p.Report.Seccomp {
		t.Skipf("not everything can be enforced here: %+v", p.Report)
	}
}

// openFolder is a folder that every user can enter, whatever the test's own
// permissions.
func openFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestProfiles(t *testing.T) {
	readable := filepath.Join(openFolder(t), "clip.bin")
	if err := os.WriteFile(readable, []byte("clip"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(readable, 0o666); err != nil {
		t.Fatal(err)
	}
	elsewhere := filepath.Join(openFolder(t), "config.yaml")
	if err := os.WriteFile(elsewhere, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		profile Profile
		sockets string // allowed after Seal
		uid     int
	}{
		{Infer, "", BaseUID},
		{InferTPU, "netlink", BaseUID + 1},
		{Camera, "netlink tcp udp unix", BaseUID + 2},
	} {
		t.Run(string(tc.profile), func(t *testing.T) {
			p := inCage(t, Options{Profile: tc.profile, ReadPaths: []string{readable}}, readable, elsewhere, "/proc/cpuinfo", "/etc/passwd", "/dev/null")
			needsAll(t, p)
			if os.Getuid() != 0 {
				tc.uid = os.Getuid()
			}
			if p.UID != tc.uid || p.GID != tc.uid || p.Groups > 1 || p.Capabilities != 0 || !p.Session {
				t.Errorf("runs as %d:%d with %d groups, capabilities %#x, session %v", p.UID, p.GID, p.Groups, p.Capabilities, p.Session)
			}
			for _, kv := range p.Env {
				for _, name := range []string{"HOME", "PATH", "USER"} {
					if v := os.Getenv(name); v != "" && kv == name+"="+v {
						t.Errorf("environment holds %s", kv)
					}
				}
			}
			var sockets []string
			for name, err := range p.Sealed {
				if err == "" {
					sockets = append(sockets, name)
				}
			}
			slices.Sort(sockets)
			if got := strings.Join(sockets, " "); got != tc.sockets {
				t.Errorf("sockets %q, expected %q: %v", got, tc.sockets, p.Sealed)
			}
			if tc.profile == Camera && p.Caged["serve"] == "" {
				// Port 0 is a bind as well.
				t.Error("a camera may serve before it is sealed")
			}
			for path, want := range map[string]bool{readable: true, "/proc/cpuinfo": true, "/dev/null": true, elsewhere: false, "/etc/passwd": false} {
				if got := p.Readable[path] == ""; got != want {
					t.Errorf("read %s: %v, expected %v", path, p.Readable[path], want)
				}
				if p.Writable[path] == "" && path != "/dev/null" {
					t.Errorf("%s can be written", path)
				}
			}
			if p.Limits["core"] != 0 || p.Limits["nofile"] > 256 {
				t.Errorf("limits %v", p.Limits)
			}
		})
	}
}

// A clip in a closed folder: a camera of root's can read it and nothing else, and
// says how; an inference child cannot be started.
func TestClosedReadPath(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: others cannot be kept out of their own folders")
	}
	home := filepath.Join(openFolder(t), "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	clip, diary := filepath.Join(home, "clip.bin"), filepath.Join(home, "diary")
	for _, f := range []string{clip, diary} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := inCage(t, Options{Profile: Camera, ReadPaths: []string{clip}}, clip, diary, "/etc/shadow")
	if !p.Report.Seccomp || len(p.Report.Gaps) != 1 || !strings.Contains(p.Report.Gaps[0], "CAP_DAC_READ_SEARCH") {
		t.Skipf("not everything can be enforced here: %+v", p.Report)
	}
	if p.UID == 0 || p.Capabilities != 1<<unix.CAP_DAC_READ_SEARCH {
		t.Errorf("uid %d, capabilities %#x", p.UID, p.Capabilities)
	}
	if p.Readable[clip] != "" || p.Readable[diary] == "" || p.Readable["/etc/shadow"] == "" || p.Writable[clip] == "" {
		t.Errorf("readable %v, writable %v", p.Readable, p.Writable)
	}

	code, message := launchFails(t, Options{Profile: Infer, ReadPaths: []string{clip}})
	if code != ExitCode || !strings.Contains(message, clip+" cannot be read by user id 64100") {
		t.Errorf("exit code %d: %s", code, message)
	}
}

// launchFails runs a child that cannot be caged.
func launchFails(t *testing.T, o Options) (int, string) {
	t.Helper()
	var stderr bytes.Buffer
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if o.Program == "" {
		o.Program = self
	}
	o.Stderr = &stderr
	cmd, err := Command(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	return exit.ExitCode(), stderr.String()
}

func TestLaunchErrors(t *testing.T) {
	script := filepath.Join(openFolder(t), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"no ELF", Options{Profile: Infer, Program: script}, "bad magic number"},
		{"read path missing", Options{Profile: Camera, ReadPaths: []string{"/nonexistent/clip"}}, "/nonexistent/clip"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, message := launchFails(t, tc.o)
			if code != ExitCode || !strings.HasPrefix(message, "cage: ") || strings.Count(message, "\n") != 1 || !strings.Contains(message, tc.want) {
				t.Errorf("exit code %d, %q, expected one line with %q", code, message, tc.want)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		o    Options
		want string
	}{
		{"profile", Options{Program: self, Profile: "sieve"}, `unknown profile "sieve"`},
		{"relative program", Options{Program: "drover-infer", Profile: Infer}, "no absolute path"},
		{"relative read path", Options{Program: self, Profile: Infer, ReadPaths: []string{"x"}}, "no absolute path"},
		{"relative device", Options{Program: self, Profile: Infer, Devices: []string{"video0"}}, "no absolute path"},
		{"negative limit", Options{Program: self, Profile: Infer, MemoryBytes: -1}, "negative"},
		{"too many files", Options{Program: self, Profile: Infer, Files: make([]*os.File, MaxFiles+1)}, "descriptors"},
		{"folder", Options{Program: "/usr", Profile: Infer}, "not an executable file"},
		{"no program", Options{Program: "/nonexistent", Profile: Infer}, "no such file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Command(context.Background(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, expected %q", err, tc.want)
			}
		})
	}
}

// The end of the context kills the child.
func TestContextKills(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("no sleep here")
	}
	cmd, err := Command(ctx, Options{Profile: Camera, Program: sleep, Args: []string{"60"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	start := time.Now()
	if err := cmd.Wait(); err == nil || time.Since(start) > 30*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestSealWithoutLauncherSaysSo(t *testing.T) {
	if gaps := launcherGaps(); len(gaps) != 1 || !strings.Contains(gaps[0], "without a cage") {
		t.Errorf("%q", gaps)
	}
	t.Setenv(gapsEnv, `["a","b"]`)
	if gaps := launcherGaps(); !slices.Equal(gaps, []string{"a", "b"}) {
		t.Errorf("%q", gaps)
	}
	t.Setenv(gapsEnv, `{`)
	if gaps := launcherGaps(); len(gaps) != 1 || !strings.Contains(gaps[0], "unreadable") {
		t.Errorf("%q", gaps)
	}
}
