package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer/host/protocol"
)

// hostile are the options that start the child of misbehave.
func hostile(t testing.TB, deed string, env ...string) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Program: self, env: append([]string{deedEnv + "=" + deed}, env...)}
}

// provoke takes the conversation as far as it goes, and returns the child, if
// there was one, and the error that ended it.
func provoke(t *testing.T, o Options) (*Child, error) { return provokeTo(t, o, asked, 30*time.Second) }

// stage says how far a conversation goes.
type stage int

const (
	started stage = iota
	given         // a model
	asked         // about two pictures
)

func provokeTo(t *testing.T, o Options, last stage, limit time.Duration) (*Child, error) {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if last == started {
		return c, nil
	}
	if _, err := c.Load(ctx, []byte("model"), fakeSpec(), protocol.Runtime{}); err != nil {
		return c, err
	}
	if last == given {
		return c, nil
	}
	for range 2 {
		if _, err := c.Classify(ctx, picture(4, 4, camera.Gray8), nil); err != nil {
			return c, err
		}
	}
	return c, nil
}

func TestHostileChild(t *testing.T) {
	for _, tc := range []struct {
		deed   string
		kind   DeathKind
		detail string // in the error
	}{
		{"garbage", Protocol, "version 255"},
		{"empty", Protocol, "truncated or oversized"},
		{"version", Protocol, "message version 9"},
		{"oversized", Protocol, "oversized packet"},
		{"badjson", Protocol, "malformed control message"},
		{"newkey", Protocol, `unknown field "programme"`},
		{"silent", Killed, "not ready after"},
		{"spinstart", Killed, "not ready after"},
		{"exit", Exited, "code 3"},
		{"abort", Signaled, "panic: the hostile child aborts"},
		{"noisy", Exited, "the very last words"},
		{"sealfirst", Protocol, "message 4 with 0 descriptors, expected 2"},
		{"fdhello", Protocol, "1 descriptors"},
		{"deaf", Protocol, "closed its socket and stayed"},
		{"resultfirst", Protocol, "expected 4"},
		{"exec", Signaled, "its cage forbids"},
		{"execself", Signaled, "its cage forbids"},
		{"ptrace", Signaled, "its cage forbids"},
		{"mount", Signaled, "its cage forbids"},
		{"unshare", Signaled, "its cage forbids"},
		{"peek", Signaled, "its cage forbids"},
		{"exitloaded", Exited, "code 5"},
		{"spinload", Killed, "no answer in time"},
		{"loadedearly", Protocol, "that it was not given"},
		{"refusedearly", Protocol, "that it was not given"},
		{"othercontract", Protocol, "another contract"},
		{"noclassifier", Protocol, "no classifier"},
		{"newdelegate", Protocol, `unknown delegate "warp"`},
		{"newrefusal", Protocol, `unknown kind "mood"`},
		{"stranger", Protocol, "ring 5, which was never attached"},
		{"unasked", Protocol, "answer to request 1, which nobody waits for"},
		{"loadagain", Protocol, "that it was not given"},
		{"unknown", Protocol, "unexpected kind 200"},
		{"hoarder", Exited, "code 62"},
		{"faults", Exited, "code 6"},
		{"spin", Killed, "no answer in time"},
		{"dies", Exited, "code 8"},
		{"long", Protocol, "tensor of 4 bytes for request 1, the contract says 3"},
		{"short", Protocol, "tensor of 2 bytes"},
		{"wrongid", Protocol, "answer to request 2"},
		{"wordy", Protocol, "message of 50000 bytes"},
		{"newstate", Protocol, "status 9"},
		{"truncated", Protocol, "malformed result"},
		{"twice", Protocol, "answer to request 1"},
		{"hugefile", Protocol, "tensor of 1073741824 bytes"},
		{"shortfile", Protocol, "memfd of 2 bytes"},
		{"unsealed", Protocol, "no sealed memfd"},
		{"nofile", Protocol, "with 0 descriptors"},
		{"foreignfile", Protocol, "no sealed memfd"},
		{"manyfiles", Protocol, "with 3 descriptors"},
	} {
		t.Run(tc.deed, func(t *testing.T) {
			o := hostile(t, tc.deed, "GOTRACEBACK=crash")
			if strings.Contains(tc.detail, "not ready") {
				o.StartTimeout = 300 * time.Millisecond
			}
			last, ok := map[string]stage{"loadedearly": started, "refusedearly": started, "unasked": given, "stranger": given, "loadagain": given}[tc.deed]
			if !ok {
				last = asked
			}
			limit := 30 * time.Second
			if strings.Contains(tc.detail, "in time") {
				limit = 300 * time.Millisecond
			}
			c, err := provokeTo(t, o, last, limit)
			if c != nil && err == nil { // a deed that no request stumbles upon
				select {
				case <-c.Done():
					err = c.Err()
				case <-time.After(30 * time.Second):
					t.Fatal("the child is still alive")
				}
			}
			var d *Death
			if !errors.As(err, &d) {
				t.Fatalf("got %v, expected a death", err)
			}
			if d.Kind != tc.kind || !strings.Contains(err.Error(), tc.detail) {
				t.Errorf("got %s: %v\nexpected %s with %q", d.Kind, err, tc.kind, tc.detail)
			}
			if strings.ContainsAny(err.Error(), "\n\x1b") || len(err.Error()) > 1000 || len(d.Stderr) > tailBytes+100 {
				t.Errorf("error of %d bytes is not fit to print: %q", len(err.Error()), err)
			}
			if tc.kind == Signaled && tc.deed != "abort" && d.Signal != syscall.SIGSYS {
				t.Errorf("signal %v", d.Signal)
			}
			if tc.kind == Killed && !errors.Is(err, context.DeadlineExceeded) {
				t.Error("the error does not say that time ran out")
			}
			if syscall.Kill(d.PID, 0) == nil {
				t.Errorf("process %d is still there", d.PID)
			}
		})
	}
}

// The child tries to get at files, sockets and processes, before and after the
// cage is closed from inside. It reports what it achieved.
func TestBreakingOut(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(secret, []byte("password: secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(secret, 0o666); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(secret); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil { // only the cage is in the way
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, deed := range []string{"openended", "breakout"} {
		t.Run(deed, func(t *testing.T) {
			c, err := provoke(t, hostile(t, deed, secretEnv+"="+secret, listenEnv+"="+port))
			if c != nil {
				for _, gap := range c.Sealed().Gaps {
					if !strings.Contains(gap, "not started as root") {
						t.Skipf("this system cannot enforce all: %q", c.Sealed().Gaps)
					}
				}
			}
			var d *Death
			if !errors.As(err, &d) || d.Kind != Exited || d.Code != 0 || !strings.Contains(d.Stderr, "attempts failed") {
				t.Fatalf("got %v (%+v)", err, d)
			}
		})
	}
	if b, err := os.ReadFile(secret); err != nil || string(b) != "password: secret" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

func TestMemoryLimit(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's shadow memory does not fit under any limit")
	}
	o := hostile(t, "greedy")
	o.MemoryBytes = 256 << 20
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Load(t.Context(), nil, fakeSpec(), protocol.Runtime{}); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	var d *Death
	if err := c.Err(); !errors.As(err, &d) || !strings.Contains(err.Error(), "out of memory") {
		t.Errorf("got %v", err)
	}
}

// What the child left behind dies with it, and does not keep its socket open.
func TestGrandchild(t *testing.T) {
	_, err := provoke(t, hostile(t, "family"))
	var d *Death
	if !errors.As(err, &d) || d.Kind != Exited || d.Code != 9 {
		t.Fatalf("got %v", err)
	}
	var pid int
	if _, err := fmt.Sscanf(d.Stderr, "grandchild %d", &pid); err != nil {
		t.Fatalf("%v in %q", err, d.Stderr)
	}
	for deadline := time.Now().Add(5 * time.Second); ; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the grandchild lives: %s", stat)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A child that floods its parent with results of an attached ring cannot stop
// the parent from detaching, nor from ending it.
func TestFlood(t *testing.T) {
	c, err := Start(t.Context(), hostile(t, "flood"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var results atomic.Int64
	enough := make(chan struct{})
	c.OnResult(func(r *protocol.Result) {
		if r.Source != 1 || len(r.Data) != 3 {
			t.Errorf("result %+v", r)
		}
		if results.Add(1) == 1000 {
			close(enough)
		}
	})
	if _, err := c.Load(t.Context(), nil, fakeSpec(), protocol.Runtime{}); err != nil {
		t.Fatal(err)
	}
	f, err := ipc.SealedMemfd("ring", []byte("ring"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := c.Attach(1, f, f, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.Attach(1, f, f, 0); !errors.Is(err, ErrState) {
		t.Errorf("attached twice: %v", err)
	}
	<-enough
	if err := c.Detach(1); err != nil {
		t.Error(err)
	}
	if err := c.Detach(1); !errors.Is(err, ErrState) {
		t.Errorf("detached twice: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if c.Err() != nil {
		t.Errorf("closed in good order, but: %v", c.Err())
	}
}

func TestFaultsAreLoggedSparingly(t *testing.T) {
	var log bytes.Buffer
	o := hostile(t, "faults")
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	c, err := provoke(t, o)
	if err == nil {
		t.Fatal("no error")
	}
	<-c.Done()
	if n := strings.Count(log.String(), "\n"); n < 1 || n > 5 || strings.Contains(log.String(), "\x1b") {
		t.Errorf("%d lines: %.500s", n, log.String())
	}
}
