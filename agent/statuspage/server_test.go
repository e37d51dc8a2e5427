package statuspage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/agent/wire"
)

func TestHostCheck(t *testing.T) {
	for _, c := range []struct {
		host string
		ok   bool
	}{
		{"127.0.0.1:8080", true},
		{"127.0.0.1", true},
		{"localhost:8080", true},
		{"LOCALHOST", true},
		{"[::1]:8080", true},
		{"[::1]", true},
		{"192.168.1.20:8080", true},
		{"[fe80::1%eth0]:8080", true},
		{"", false},
		{"evil.example", false},
		{"evil.example:8080", false},
		{"localhost.evil.example:8080", false},
		{"127.0.0.1.evil.example", false},
		{"127.0.0.1@evil.example", false},
		{"evil.example#127.0.0.1", false},
		{"127.1:8080", false},
		{"2130706433", false},
		{"0x7f000001", false},
		{"local-host:80", false},
	} {
		for _, path := range []string{"/", "/api/status", "/metrics", "/healthz", "/preview/door.jpg", "/app.js", "/nothing"} {
			w := get(t, &fake{snapshot: healthy(), preview: picture}, path, func(r *http.Request) { r.Host = c.host })
			if refused := w.Code == http.StatusMisdirectedRequest; refused == c.ok {
				t.Errorf("Host %q, %s: status %d", c.host, path, w.Code)
			}
		}
	}
}

func TestOtherSitesAreKeptOut(t *testing.T) {
	for _, c := range []struct {
		site, mode string
		code       int
	}{
		{"", "", 200},
		{"none", "navigate", 200},
		{"same-origin", "cors", 200},
		{"cross-site", "navigate", 200}, // a link to the page
		{"cross-site", "no-cors", 403},  // an <img> elsewhere
		{"cross-site", "cors", 403},
		{"same-site", "no-cors", 403}, // another port of localhost
	} {
		w := get(t, &fake{snapshot: healthy(), preview: picture}, "/preview/door.jpg", func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", c.site)
			r.Header.Set("Sec-Fetch-Mode", c.mode)
		})
		if w.Code != c.code {
			t.Errorf("site %q, mode %q: status %d, want %d", c.site, c.mode, w.Code, c.code)
		}
	}
}

func TestHeaders(t *testing.T) {
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/api/status": "application/json", "/style.css": "text/css; charset=utf-8",
		"/app.js": "text/javascript; charset=utf-8", "/icon.svg": "image/svg+xml", "/healthz": "text/plain; charset=utf-8",
		"/preview/door.jpg": "image/jpeg", "/metrics": "text/plain; version=0.0.4; charset=utf-8; escaping=underscores",
	} {
		w := get(t, &fake{snapshot: healthy(), preview: picture}, path)
		h := w.Header()
		if w.Code != http.StatusOK || h.Get("Content-Type") != kind {
			t.Errorf("%s: status %d, type %q", path, w.Code, h.Get("Content-Type"))
		}
		csp := h.Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
			t.Errorf("%s: policy %q", path, csp)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin", "Cache-Control": "no-store",
			"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Access-Control-Allow-Origin": "",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", path, name, h.Get(name), want)
			}
		}
	}
}

func TestReadOnly(t *testing.T) {
	for _, path := range []string{"/", "/api/status", "/metrics", "/healthz", "/preview/door.jpg"} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch} {
			f := &fake{snapshot: healthy(), preview: picture}
			w := get(t, f, path, func(r *http.Request) { r.Method = method })
			if w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: status %d", method, path, w.Code)
			}
		}
	}
}

func TestNothingIsLoadedFromOutside(t *testing.T) {
	body := get(t, &fake{snapshot: healthy()}, "/").Body.String()
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		if !strings.HasPrefix(m[1], "/") && !strings.HasPrefix(m[1], "#") || strings.HasPrefix(m[1], "//") {
			t.Errorf("link to %q", m[1])
		}
	}
	if regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|<style`).MatchString(body) {
		t.Error("inline style or handler, which the policy forbids")
	}
}

func TestStatusRoundTrip(t *testing.T) {
	f := &fake{snapshot: healthy()}
	var got Snapshot
	w := get(t, f, "/api/status")
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f.snapshot, got); diff != "" {
		t.Error(diff)
	}
}

func TestFiguresThatJSONCannotHold(t *testing.T) {
	s := healthy()
	s.Cameras[0].FPS, s.Model.FPS, s.State.Model.FPS, s.State.Cameras[0].FPS = math.NaN(), math.Inf(1), math.Inf(-1), math.NaN()
	s.Cameras[0].Top[0].P = float32(math.NaN())
	for _, path := range []string{"/", "/api/status", "/api/status?as=page", "/metrics"} {
		w := get(t, &fake{snapshot: s}, path)
		if w.Code != http.StatusOK || w.Body.Len() == 0 || strings.Contains(w.Body.String(), "NaN") || strings.Contains(w.Body.String(), "Inf") {
			t.Errorf("%s: status %d, %d bytes", path, w.Code, w.Body.Len())
		}
	}
}

func TestHealth(t *testing.T) {
	for _, c := range []struct {
		state wire.State
		code  int
		body  string
	}{
		{wire.State{Healthy: true}, 200, "ok\n"},
		{wire.State{Problems: []string{"camera door is stalled", "disk full"}}, 503, "camera door is stalled\ndisk full\n"},
		{wire.State{}, 503, "The device reports that it is not healthy, without a reason.\n"},
	} {
		w := get(t, &fake{snapshot: Snapshot{State: c.state}}, "/healthz")
		if w.Code != c.code || w.Body.String() != c.body {
			t.Errorf("%+v: %d %q", c.state, w.Code, w.Body)
		}
	}
}

func TestPreview(t *testing.T) {
	var asked string
	ok := func(_ context.Context, camera string, width int) ([]byte, error) {
		asked = fmt.Sprintf("%s %d", camera, width)
		return []byte("jpeg"), nil
	}
	for _, c := range []struct {
		path    string
		preview func(context.Context, string, int) ([]byte, error)
		code    int
		asked   string
	}{
		{"/preview/door.jpg", ok, 200, "door 640"},
		{"/preview/door.jpg?width=320", ok, 200, "door 320"},
		{"/preview/a%2Fb%20c.jpg", ok, 200, "a/b c 640"},
		{"/preview/door.jpg?width=15", ok, 400, ""},
		{"/preview/door.jpg?width=1921", ok, 400, ""},
		{"/preview/door.jpg?width=99999999999999999999", ok, 400, ""},
		{"/preview/door.png", ok, 404, ""},
		{"/preview/", ok, 404, ""},
		{"/preview/door.jpg", func(context.Context, string, int) ([]byte, error) { return nil, errors.New("dead") }, 503, ""},
		{"/preview/door.jpg", func(context.Context, string, int) ([]byte, error) { return nil, nil }, 503, ""},
	} {
		asked = ""
		w := get(t, &fake{snapshot: healthy(), preview: c.preview}, c.path)
		if w.Code != c.code || asked != c.asked {
			t.Errorf("%s: status %d, asked %q", c.path, w.Code, asked)
		}
	}
}

func TestPreviewsThatBlockAreBounded(t *testing.T) {
	entered := make(chan struct{}, 2*maxPreviews)
	f := &fake{snapshot: healthy(), preview: func(ctx context.Context, _ string, _ int) ([]byte, error) {
		if _, ok := ctx.Deadline(); !ok {
			return nil, errors.New("no deadline")
		}
		entered <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	s := start(t, f)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	fetch := func(path string) int {
		r, err := client.Get(s.URL() + path)
		if err != nil {
			return 0
		}
		defer r.Body.Close()
		_, _ = io.Copy(io.Discard, r.Body)
		return r.StatusCode
	}
	codes := make(chan int, maxPreviews)
	for range maxPreviews {
		go func() { codes <- fetch("preview/door.jpg") }()
	}
	for range maxPreviews {
		<-entered
	}
	if code := fetch("preview/door.jpg"); code != http.StatusServiceUnavailable {
		t.Errorf("one too many: status %d", code)
	}
	if code := fetch("api/status"); code != http.StatusOK {
		t.Errorf("status beside blocked previews: %d", code)
	}
	for range maxPreviews {
		if code := <-codes; code != http.StatusServiceUnavailable {
			t.Errorf("blocked preview: status %d", code)
		}
	}
}

func TestStopEndsPreviewsUnderWay(t *testing.T) {
	entered := make(chan struct{})
	f := &fake{snapshot: healthy(), preview: func(ctx context.Context, _ string, _ int) ([]byte, error) {
		close(entered)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	s, err := Listen(Config{Addr: "127.0.0.1:0", Source: f, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		if r, err := client.Get(s.URL() + "preview/door.jpg"); err == nil {
			r.Body.Close()
		}
	}()
	<-entered
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("does not stop")
	}
	<-asked
}

func TestOpenToTheNetworkIsTold(t *testing.T) {
	for _, c := range []struct {
		addr string
		told bool
	}{{"127.0.0.1:0", false}, {"localhost:0", false}, {"0.0.0.0:0", true}, {":0", true}} {
		var log bytes.Buffer
		s, err := Listen(Config{Addr: c.addr, Source: &fake{snapshot: healthy()}, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		s.listener.Close()
		onPage := false
		for _, p := range s.text.describe(healthy(), s.exposed, 1).Problems {
			onPage = onPage || strings.Contains(p.Text, "This page listens on")
		}
		inLog := strings.Contains(log.String(), "level=WARN") && strings.Contains(log.String(), "open to the network")
		if onPage != c.told || inLog != c.told {
			t.Errorf("%s: on the page %v, in the log %v, want %v", c.addr, onPage, inLog, c.told)
		}
	}
}

func TestPortInUse(t *testing.T) {
	s := start(t, &fake{})
	_, err := Listen(Config{Addr: s.listener.Addr().String(), Source: &fake{}, Logger: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "status.listen") {
		t.Errorf("error %v", err)
	}
}
