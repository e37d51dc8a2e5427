// Package config reads the device's configuration: one YAML file, read
// strictly, so that a misspelt key is an error that names it. A few settings
// may change while the daemon runs (Reloadable); Watch follows the file and
// keeps the last good configuration when an edit is bad.
//
//	device: gate-1
//	state: /var/lib/drover
//	labels: {site: north}
//	cameras:
//	  - name: door
//	    source: v4l2:///dev/video0?width=640&height=480&fps=30
//	status: {listen: 127.0.0.1:8080}
//	anchor: {tpm: auto}
//	inbox: {media: [/media]}
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/camera"
)

// MaxFile bounds the configuration file.
const MaxFile = 1 << 20

// MaxCameras bounds the list of cameras.
const MaxCameras = 16

// ErrConfig is wrapped by every complaint about the file's content.
var ErrConfig = errors.New("config")

// Config is the whole file.
type Config struct {
	Device     string   `yaml:"device"` // name in the fleet; fixed at enrolment
	State      string   `yaml:"state"`  // folder for everything durable
	Status     Status   `yaml:"status"`
	Children   Children `yaml:"children"`
	Anchor     Anchor   `yaml:"anchor"`
	Inbox      Inbox    `yaml:"inbox"`
	Sources    []string `yaml:"sources"` // https://host:port that serve blobs, beside those told at enrolment
	Reloadable `yaml:",inline"`
}

// Status is the local status page.
type Status struct {
	Listen string `yaml:"listen"` // host:port; empty means 127.0.0.1:8080, "off" means none
}

// Children is how child programs are found and confined.
type Children struct {
	Programs string `yaml:"programs"` // folder of drover-camera and drover-infer; empty: beside droverd
	UID      int    `yaml:"uid"`      // 0: chosen by the cage when droverd is root
	GID      int    `yaml:"gid"`
}

// Anchor is where the security epoch and the device's key are kept.
type Anchor struct {
	// TPM is "auto" or empty (/dev/tpmrm0 where a new device has one, else
	// files), "off", the absolute path of a TPM device or of an emulator's Unix
	// socket, or tcp:host:port.
	TPM string `yaml:"tpm"`
	// TakeOwner lets drover set the owner's and the lockout's auth values of a
	// TPM that nothing else uses; docs/ANCHOR.md says when.
	TakeOwner bool `yaml:"take_owner"`
}

// Reloadable is what may change while the daemon runs.
type Reloadable struct {
	Labels    map[string]string `yaml:"labels"` // what rollouts select by
	Cameras   []Camera          `yaml:"cameras"`
	Model     Model             `yaml:"model"`
	Telemetry Telemetry         `yaml:"telemetry"`
	Log       Log               `yaml:"log"`
}

// Camera is one camera.
type Camera struct {
	Name       string        `yaml:"name"`
	Source     string        `yaml:"source"` // as camera.ParseSource reads it
	StallAfter time.Duration `yaml:"stall_after"`
}

// Model is how frames are answered.
type Model struct {
	StaleAfter time.Duration `yaml:"stale_after"` // an older frame is not answered; default 1 s
}

// Telemetry is what the device says about itself.
type Telemetry struct {
	Every time.Duration `yaml:"every"` // default 60 s
}

// Log is the daemon's log.
type Log struct {
	Level string `yaml:"level"` // debug, info, warn, error
}

// Default is what stands where the file is silent.
func Default() Config {
	return Config{
		State:  "/var/lib/drover",
		Status: Status{Listen: "127.0.0.1:8080"},
		Anchor: Anchor{TPM: "auto"},
		Inbox:  Inbox{Patience: 2 * time.Minute, Keep: 2},
		Reloadable: Reloadable{
			Model:     Model{StaleAfter: time.Second},
			Telemetry: Telemetry{Every: time.Minute},
			Log:       Log{Level: "info"},
		},
	}
}

// Load reads and checks a file. Errors name the file, the line where there is
// one, and the key.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("config: read %s: %w", path, err)
	}
	if len(b) > MaxFile {
		return Config{}, fmt.Errorf("%w: %s is larger than %d bytes", ErrConfig, path, MaxFile)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", path, err)
	}
	if !filepath.IsAbs(c.State) {
		c.State = filepath.Join(filepath.Dir(path), c.State)
	}
	switch {
	case c.Inbox.Dir == "":
		c.Inbox.Dir = filepath.Join(c.State, "inbox")
	case !c.Inbox.Off() && !filepath.IsAbs(c.Inbox.Dir):
		c.Inbox.Dir = filepath.Join(filepath.Dir(path), c.Inbox.Dir)
	}
	return c, nil
}

// Parse reads and checks YAML.
func Parse(b []byte) (Config, error) {
	c := Default()
	d := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict())
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%w: %s", ErrConfig, strings.TrimSpace(yaml.FormatError(err, false, false)))
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%w: the file holds a second document (---); one is read", ErrConfig)
	}
	return c, c.Validate()
}

// Validate checks the values and names the first that is wrong.
func (c *Config) Validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	if !wire.ValidName(c.Device) {
		return bad("device: %q is no device name (a–z, 0–9 and hyphens, at most 63)", c.Device)
	}
	if c.State == "" {
		return bad("state: a folder is needed")
	}
	if c.Status.Listen != "off" {
		if _, _, err := net.SplitHostPort(c.Status.Listen); err != nil {
			return bad("status.listen: %q is no host:port (or off)", c.Status.Listen)
		}
	}
	if c.Children.UID < 0 || c.Children.GID < 0 {
		return bad("children: uid %d, gid %d: not negative; 0 leaves the choice to droverd", c.Children.UID, c.Children.GID)
	}
	if !c.Anchor.valid() {
		return bad("anchor.tpm: %q, one of auto, off, an absolute path, tcp:host:port", c.Anchor.TPM)
	}
	if len(c.Sources) > wire.MaxSources {
		return bad("sources: %d, at most %d", len(c.Sources), wire.MaxSources)
	}
	for i, s := range c.Sources {
		if u, err := url.Parse(s); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			return bad("sources[%d]: %q is no https://host:port", i, s)
		}
	}
	if err := c.Inbox.check(); err != nil {
		return bad("inbox.%v", err)
	}
	if len(c.Cameras) > MaxCameras {
		return bad("cameras: %d, at most %d", len(c.Cameras), MaxCameras)
	}
	seen := map[string]bool{}
	for i, cam := range c.Cameras {
		if !wire.ValidName(cam.Name) {
			return bad("cameras[%d].name: %q is no name (a–z, 0–9 and hyphens, at most 63)", i, cam.Name)
		}
		if seen[cam.Name] {
			return bad("cameras[%d].name: %q stands twice", i, cam.Name)
		}
		seen[cam.Name] = true
		if _, err := cam.Settings().Validate(); err != nil {
			return bad("cameras[%d].source (%s): %v", i, cam.Name, err)
		}
	}
	for k, v := range c.Labels {
		if k == "" || len(k) > 63 || len(v) > 255 {
			return bad("labels: %q: a key has 1 to 63 bytes, a value at most 255", k)
		}
	}
	if c.Model.StaleAfter < time.Millisecond {
		return bad("model.stale_after: %v, at least 1ms", c.Model.StaleAfter)
	}
	if c.Telemetry.Every < time.Second {
		return bad("telemetry.every: %v, at least 1s", c.Telemetry.Every)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		return bad("log.level: %q, one of debug, info, warn, error", c.Log.Level)
	}
	return nil
}

func (a Anchor) valid() bool {
	if address, ok := strings.CutPrefix(a.TPM, "tcp:"); ok {
		host, port, err := net.SplitHostPort(address)
		return err == nil && host != "" && port != ""
	}
	return a.TPM == "" || a.TPM == "auto" || a.TPM == "off" || filepath.IsAbs(a.TPM)
}

// Settings is the camera as package camera knows it.
func (c Camera) Settings() camera.Config {
	s := camera.Config{Source: c.Source, StallAfter: c.StallAfter}
	if s.StallAfter > camera.DefaultStuckAfter/2 {
		s.StuckAfter = 2 * s.StallAfter // it must come after
	}
	return s
}

// NeedsRestart names the keys that differ and take effect only at the next
// start of the daemon.
func (c *Config) NeedsRestart(next *Config) []string {
	var keys []string
	for _, k := range []struct {
		key  string
		same bool
	}{
		{"device", c.Device == next.Device},
		{"state", c.State == next.State},
		{"status", c.Status == next.Status},
		{"children", c.Children == next.Children},
		{"anchor", c.Anchor == next.Anchor},
		{"inbox", c.Inbox.same(next.Inbox)},
		{"sources", slices.Equal(c.Sources, next.Sources)},
	} {
		if !k.same {
			keys = append(keys, k.key)
		}
	}
	return keys
}
