package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/droverhq/drover/agent/statuspage"
)

// device is the real daemon.
type device struct {
	dir    string
	status string // host:port
	cmd    *exec.Cmd
	exited chan struct{}
	client http.Client
	missed atomic.Int64 // times the status page did not answer
	asked  atomic.Int64
}

// settings are droverd's configuration, as far as it is used here.
type settings struct {
	Device    string            `yaml:"device"`
	State     string            `yaml:"state"`
	Status    map[string]string `yaml:"status"`
	Cameras   []map[string]any  `yaml:"cameras"`
	Telemetry map[string]string `yaml:"telemetry"`
	// Anchor stays off this machine's own TPM: what is brought up here is
	// thrown away again.
	Anchor map[string]string `yaml:"anchor"`
}

const deviceStart = 30 * time.Second

// startDevice configures the daemon, hands it a token if it is new, and waits
// for its status page.
func (w *world) startDevice(ctx context.Context) (*device, error) {
	d := &device{dir: filepath.Join(w.opts.Dir, "device"), exited: make(chan struct{}), client: http.Client{Timeout: 3 * time.Second}}
	var err error
	if d.status, err = freeAddress(8080); err != nil {
		return nil, err
	}
	state := filepath.Join(d.dir, "state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("up: device: %w", err)
	}
	source := w.opts.Camera
	if w.opts.Demo {
		source = "folder://" + w.picturesDir() + "?rate=25&loop=true"
	}
	conf, err := yaml.Marshal(settings{
		Device: deviceName, State: "state", Status: map[string]string{"listen": d.status},
		Cameras: []map[string]any{{"name": "door", "source": source}}, Telemetry: map[string]string{"every": "10s"}, Anchor: map[string]string{"tpm": "off"},
	})
	if err != nil {
		return nil, fmt.Errorf("up: device: %w", err)
	}
	path := filepath.Join(d.dir, "drover.yaml")
	if err := os.WriteFile(path, conf, 0o600); err != nil {
		return nil, fmt.Errorf("up: device: %w", err)
	}
	if _, err := os.Stat(filepath.Join(state, "identity", "identity.json")); err != nil {
		token, err := w.fleet.Token(ctx, time.Hour, true)
		if err != nil {
			return nil, fmt.Errorf("up: enrolment token: %w", err)
		}
		if err := os.WriteFile(filepath.Join(state, "enrolment-token"), []byte(token.String()), 0o600); err != nil {
			return nil, fmt.Errorf("up: device: %w", err)
		}
	}
	return d, d.start(ctx, filepath.Join(w.opts.Programs, "droverd"), path)
}

func (d *device) logPath() string { return filepath.Join(d.dir, "droverd.log") }

func (d *device) start(ctx context.Context, program, conf string) error {
	log, err := os.OpenFile(d.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("up: device: %w", err)
	}
	defer log.Close()
	d.cmd = exec.Command(program, "--config", conf)
	d.cmd.Stderr = log
	// A Ctrl-C at the terminal is for us alone: the device is stopped in order.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := d.cmd.Start(); err != nil {
		return fmt.Errorf("up: device: %w", err)
	}
	go func() { _ = d.cmd.Wait(); close(d.exited) }()
	deadline := time.Now().Add(deviceStart)
	for {
		if _, err := d.snapshot(ctx); err == nil {
			d.missed.Store(0)
			return nil
		}
		select {
		case <-d.exited:
			return fmt.Errorf("up: droverd did not start: %s", d.lastWords())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), d.stop())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.Join(fmt.Errorf("up: no status page at %s after %v; see %s", d.url(), deviceStart, d.logPath()), d.stop())
		}
	}
}

// stop ends the daemon in order, or kills it after a while.
func (d *device) stop() error {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(15 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.exited
		return errors.New("up: droverd did not stop and was killed")
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("up: droverd ended with code %d: %s", code, d.lastWords())
	}
	return nil
}

func (d *device) url() string { return "http://" + d.status + "/" }

// lastWords is the end of the daemon's log.
func (d *device) lastWords() string {
	b, err := os.ReadFile(d.logPath())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1] + " (all of it: " + d.logPath() + ")"
}

// snapshot asks the status page.
func (d *device) snapshot(ctx context.Context) (s statuspage.Snapshot, err error) {
	d.asked.Add(1)
	defer func() {
		if err != nil && ctx.Err() == nil {
			d.missed.Add(1)
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url()+"api/status", nil)
	if err != nil {
		return s, err
	}
	r, err := d.client.Do(req)
	if err != nil {
		return s, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return s, fmt.Errorf("up: status page answers %s", r.Status)
	}
	return s, json.NewDecoder(io.LimitReader(r.Body, 8<<20)).Decode(&s)
}
