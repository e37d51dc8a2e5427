package config

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

const good = `
device: gate-1
labels: {site: north}
cameras:
  - name: door
    source: rtsp://user:secret@camera.example/stream
    stall_after: 3s
model: {stale_after: 250ms}
`

func TestParse(t *testing.T) {
	c, err := Parse([]byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if c.Device != "gate-1" || c.State != "/var/lib/drover" || c.Labels["site"] != "north" ||
		len(c.Cameras) != 1 || c.Cameras[0].StallAfter != 3*time.Second || c.Model.StaleAfter != 250*time.Millisecond ||
		c.Telemetry.Every != time.Minute {
		t.Fatalf("%+v", c)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"unknown key", "device: a\ncamras: []\n", "camras"},
		{"unknown nested key", "device: a\nmodel: {stale_aftr: 1s}\n", "stale_aftr"},
		{"no device", "state: /x\n", "device"},
		{"bad device", "device: Gate/1\n", "Gate/1"},
		{"bad source", "device: a\ncameras: [{name: c, source: 'gopher://x'}]\n", "cameras[0].source (c)"},
		{"same name twice", "device: a\ncameras: [{name: c, source: /dev/video0}, {name: c, source: /dev/video1}]\n", "twice"},
		{"bad duration", "device: a\ntelemetry: {every: 10ms}\n", "telemetry.every"},
		{"bad tpm", "device: a\nanchor: {tpm: tpmrm0}\n", "anchor.tpm"},
		{"bad tpm address", "device: a\nanchor: {tpm: 'tcp:2321'}\n", "anchor.tpm"},
		{"unknown anchor key", "device: a\nanchor: {tmp: off}\n", "tmp"},
		{"bad level", "device: a\nlog: {level: loud}\n", "loud"},
		{"second document", "device: a\n---\ndevice: b\n", "second document"},
		{"page without port", "device: a\nstatus: {listen: '8080'}\n", "status.listen"},
		{"negative uid", "device: a\nchildren: {uid: -4}\n", "children"},
		{"duplicate key", "device: a\ndevice: b\n", "device"},
		{"not yaml", "device: [\n", "["},
		{"wrong type", "device: a\ncameras: 7\n", "[2:10]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse([]byte(tc.yaml))
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v; wanted ErrConfig that names %q", err, tc.want)
			}
		})
	}
}

func TestAPatientCamera(t *testing.T) {
	for _, stall := range []time.Duration{0, 2 * time.Second, 5 * time.Second, time.Minute} {
		c, err := Parse([]byte("device: a\ncameras: [{name: c, source: /dev/video0, stall_after: " + stall.String() + "}]\n"))
		if err != nil || c.Cameras[0].StallAfter != stall {
			t.Fatalf("stall_after %v: %v", stall, err)
		}
	}
}

func TestAnchor(t *testing.T) {
	for _, tc := range []struct{ yaml, want string }{
		{"", "auto"}, {"anchor: {take_owner: true}", "auto"}, {"anchor: {tpm: off}", "off"}, {"anchor: {tpm: auto}", "auto"},
		{"anchor: {tpm: /dev/tpmrm0, take_owner: true}", "/dev/tpmrm0"}, {"anchor: {tpm: 'tcp:127.0.0.1:2321'}", "tcp:127.0.0.1:2321"},
	} {
		c, err := Parse([]byte("device: a\n" + tc.yaml))
		if err != nil || c.Anchor.TPM != tc.want {
			t.Errorf("%q: %+v %v", tc.yaml, c.Anchor, err)
		}
		next := c
		next.Anchor.TPM += "x"
		if keys := c.NeedsRestart(&next); len(keys) != 1 || keys[0] != "anchor" {
			t.Errorf("a change of anchor needs a restart: %v", keys)
		}
	}
}

func TestSources(t *testing.T) {
	many := "[" + strings.Repeat("'https://h:1', ", wire.MaxSources+1) + "]"
	for _, tc := range []struct {
		yaml string
		ok   bool
	}{
		{"['https://hub.example:8443']", true}, {"['https://hub.example', 'https://[::1]:1/']", true}, {"[]", true},
		{"['http://hub.example:80']", false}, {"['hub.example:443']", false}, {"['https://']", false}, {"['https://h/blobs']", false},
		{"['https://u:p@h']", false}, {"['https://h?x=1']", false}, {"['https://h:port']", false}, {many, false},
	} {
		c, err := Parse([]byte("device: a\nsources: " + tc.yaml + "\n"))
		if (err == nil) != tc.ok || err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "sources")) {
			t.Errorf("%s: %v", tc.yaml, err)
		}
		next := c
		next.Sources = []string{"https://other:1"}
		if keys := c.NeedsRestart(&next); tc.ok && (len(keys) != 1 || keys[0] != "sources") {
			t.Errorf("a change of sources needs a restart: %v", keys)
		}
	}
}

func TestPasswordIsNotPrinted(t *testing.T) {
	_, err := Parse([]byte("device: a\ncameras: [{name: c, source: 'rtsp://u:secret@h:99999/'}]\n"))
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Fatalf("error %v", err)
	}
}

func TestWatchKeepsTheLastGoodOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drover.yaml")
	write := func(s string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(good)
	applied, refused := make(chan Config, 10), make(chan error, 10)
	nudge := make(chan struct{})
	w := Watcher{Path: path, Logger: slog.New(slog.DiscardHandler), Nudge: nudge,
		Apply: func(c Config) { applied <- c }, Refuse: func(err error) { refused <- err }}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	nudge <- struct{}{} // Run is watching once this is taken
	<-applied
	write("device: gate-1\nbogus: 1\n")
	if err := <-refused; !strings.Contains(err.Error(), "bogus") {
		t.Fatal(err)
	}
	write(strings.Replace(good, "250ms", "300ms", 1))
	if c := <-applied; c.Model.StaleAfter != 300*time.Millisecond {
		t.Fatal(c.Model.StaleAfter)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte("device: a\ncameras: [{name: c, source: 'folder:///x?rate=5'}]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err == nil && c.Validate() != nil {
			t.Fatal("accepted what it would refuse")
		}
	})
}
