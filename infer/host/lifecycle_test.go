package host

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer/host/protocol"
)

func TestRequestsOutOfOrder(t *testing.T) {
	c, err := Start(t.Context(), hostile(t, "serve"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Classify(t.Context(), picture(4, 4, camera.Gray8), nil); !errors.Is(err, ErrState) {
		t.Errorf("before Load: %v", err)
	}
	if err := c.Attach(1, os.Stderr, os.Stderr, 0); !errors.Is(err, ErrState) {
		t.Errorf("Attach before Load: %v", err)
	}
	bad := fakeSpec()
	bad.Labels = nil
	if _, err := c.Load(t.Context(), nil, bad, protocol.Runtime{}); err == nil || c.Err() != nil {
		t.Errorf("a spec that does not check: %v, %v", err, c.Err())
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Load(gone, nil, fakeSpec(), protocol.Runtime{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Load with an ended context: %v", err)
	}
	if _, err := c.Load(t.Context(), nil, fakeSpec(), protocol.Runtime{}); err != nil {
		t.Fatalf("an ended context did harm before anything was sent: %v", err)
	}
	out := make([]byte, 0, 8)
	a, err := c.Classify(t.Context(), picture(4, 4, camera.Gray8), out)
	if err != nil || string(a.Output) != "\x01\x02\x03" || &a.Output[0] != &out[:1][0] {
		t.Errorf("answer %v, %v", a, err)
	}
	if _, err := c.Invoke(t.Context(), make([]byte, 15), nil); err == nil {
		t.Error("a tensor of the wrong size was taken")
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := c.Classify(t.Context(), picture(4, 4, camera.Gray8), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
}

func TestStartFails(t *testing.T) {
	if _, err := Start(t.Context(), Options{Program: "/nonexistent/drover-infer"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	if _, err := Start(t.Context(), Options{Program: "/etc/passwd"}); err == nil || !strings.Contains(err.Error(), "no") {
		t.Errorf("no executable: %v", err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var d *Death
	if _, err := Start(t.Context(), Options{Program: script}); !errors.As(err, &d) || !strings.Contains(err.Error(), "could not be locked up; last words: cage: program") {
		t.Errorf("a script: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(gone, hostile(t, "silent")); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
	t.Setenv("PATH", "/nowhere")
	if _, err := FindProgram(); !errors.Is(err, ErrNoProgram) || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("FindProgram: %v", err)
	}
}

// Each start and end gives back all descriptors.
func TestDescriptorsStayFlat(t *testing.T) {
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	once := func(deed string) {
		c, _ := provoke(t, hostile(t, deed))
		if c != nil {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	once("serve")
	before := count()
	for i := range 100 {
		once([]string{"serve", "exit", "garbage", "unsealed", "fdhello"}[i%5])
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after 100 children", before, after)
	}
}
