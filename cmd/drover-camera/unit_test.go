package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/opencv"
)

func TestPaceDoesNotDrift(t *testing.T) {
	p := &pace{rate: 30}
	const start = 1000 * time.Second
	now := time.Duration(start)
	for n := range 9000 {
		due := p.due(now)
		want := start + time.Duration(float64(n)/30*float64(time.Second))
		if due != want {
			t.Fatalf("frame %d is due at %v, want %v", n, due, want)
		}
		// Each frame is taken up to 20 ms late; the schedule stays.
		now = max(now, due) + time.Duration(n%20)*time.Millisecond
	}
}

func TestPaceStartsAnewInsteadOfABurst(t *testing.T) {
	p := &pace{rate: 10}
	p.due(0)
	for _, step := range []struct{ now, want time.Duration }{
		{0, 100 * time.Millisecond},
		{1100 * time.Millisecond, 200 * time.Millisecond},  // 0.9 s late: it catches up
		{1300 * time.Millisecond, 1300 * time.Millisecond}, // 1 s late: a new schedule
		{1310 * time.Millisecond, 1400 * time.Millisecond},
	} {
		if got := p.due(step.now); got != step.want {
			t.Errorf("at %v: due %v, want %v", step.now, got, step.want)
		}
	}
}

func TestRateOfAReplay(t *testing.T) {
	for _, tt := range []struct {
		url  string
		says float64 // by the file
		want float64 // 0: not paced
	}{
		{"file:///a.avi", 12, 12},
		{"file:///a.avi?rate=5", 12, 5},
		{"file:///a.avi", 0, camera.DefaultRate},
		{"folder:///a?rate=0.5", 0, 0.5},
		{"rtsp://h/s", 30, 0},
		{"/dev/video0", 30, 0},
	} {
		src, err := camera.ParseSource(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		info := opencv.Info{FPS: tt.says}
		p := newPace(src, &info)
		if (p != nil) != (tt.want > 0) || p != nil && (p.rate != tt.want || info.FPS != tt.want) {
			t.Errorf("%s, file says %v: pace %+v, info %+v", tt.url, tt.says, p, info)
		}
	}
}

func TestJudge(t *testing.T) {
	config := camera.Config{OpenTimeout: 10 * time.Second, StallAfter: 2 * time.Second, StuckAfter: 5 * time.Second}
	for _, tt := range []struct {
		p     phase
		since time.Duration
		want  verdict
	}{
		{idle, time.Hour, fine},
		{opening, 10 * time.Second, fine},
		{opening, 11 * time.Second, noReply},
		{reading, 1999 * time.Millisecond, fine},
		{reading, 2 * time.Second, slow},
		{reading, 4999 * time.Millisecond, slow},
		{reading, 5 * time.Second, stuck},
	} {
		if got := judge(tt.p, tt.since, config); got != tt.want {
			t.Errorf("phase %d since %v: verdict %d, want %d", tt.p, tt.since, got, tt.want)
		}
	}
}

func TestWatchKeepsPhaseAndTimeTogether(t *testing.T) {
	var w watch
	if p, _ := w.look(camera.Monotonic()); p != idle {
		t.Errorf("phase %d at the start", p)
	}
	w.begin(reading)
	if p, since := w.look(camera.Monotonic() + time.Hour); p != reading || since < time.Hour || since > time.Hour+time.Minute {
		t.Errorf("phase %d since %v", p, since)
	}
	w.end()
	if p, _ := w.look(camera.Monotonic()); p != idle {
		t.Errorf("phase %d at the end", p)
	}
}

func TestClip(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("x", 5000), strings.Repeat("ü", 5000), "bad \xff byte", strings.Repeat("\xff", 3000)} {
		got := clip(s)
		if len(got) > 1010 || !utf8.ValidString(got) {
			t.Errorf("%.20q became %d bytes", s, len(got))
		}
	}
	if clip("short") != "short" {
		t.Error("a short message was changed")
	}
}

func TestStartedByHandItSaysWhatItIs(t *testing.T) {
	cmd, out := command(t)
	cmd.Run()
	first, _, _ := strings.Cut(out.String(), "\n")
	if code := cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(first, "child program of droverd") {
		t.Errorf("exit code %d, %q", code, out)
	}
	cmd, out = command(t, "--help")
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitUsage || !strings.Contains(out.String(), "--probe URL") {
		t.Errorf("exit code %d, %q", code, out)
	}
	cmd, out = command(t, "--version")
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != exitOK || !strings.Contains(out.String(), "OpenCV") {
		t.Errorf("exit code %d, %q", code, out)
	}
}
