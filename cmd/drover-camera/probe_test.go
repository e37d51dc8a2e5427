//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package main

import (
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
	for _, tt := range []struct {
		url  string
		code int
		say  string
	}{
		{"folder://" + pictures(t, 3, 40, 30) + "?rate=20", exitOK, ": 40×30 bgr8, 20.0 fps, 3 frames read, backend folder"},
		{"folder:///nothing/here", exitFault, "/nothing/here: no such file or directory"},
		{"ftp://u:geheim@host/", exitFault, "unknown scheme"},
	} {
		cmd, out := command(t, "--probe", tt.url)
		cmd.Run()
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(out.String(), tt.say) {
			t.Errorf("probe %s: exit code %d, %q; want %d and %q", tt.url, code, out, tt.code, tt.say)
		}
		if n := strings.Count(out.String(), "\n"); n != 1 || strings.Contains(out.String(), "geheim") {
			t.Errorf("probe %s prints %q, want one line without secrets", tt.url, out)
		}
	}
}
