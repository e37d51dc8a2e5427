package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/droverhq/drover/cloud"
)

// demoMark stands in a folder that a demo made and may empty.
const demoMark = ".drover-demo"

// folder makes Dir, or empties what an earlier demo left there. A folder that
// something else made is never touched by a demo.
func (w *world) folder() error {
	dir := w.opts.Dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if !w.opts.Demo {
		return nil
	}
	mark := filepath.Join(dir, demoMark)
	if _, err := os.Stat(mark); errors.Is(err, fs.ErrNotExist) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("up: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("up: %s is not empty and no demo made it; give the demo a folder of its own (--dir, or make demo DIR=…)", dir)
		}
		return os.WriteFile(mark, nil, 0o644)
	}
	for _, name := range []string{"fleet", "device", "pictures", "attacker", "hub.log"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("up: clear what the last demo left: %w", err)
		}
	}
	return nil
}

// openFleet opens the fleet, or makes one that listens on this machine alone.
func (w *world) openFleet(ctx context.Context) (err error) {
	dir := filepath.Join(w.opts.Dir, "fleet")
	if w.fleet, err = cloud.Open(ctx, dir); !errors.Is(err, cloud.ErrNoFleet) {
		return err
	}
	s := cloud.Settings{Fleet: "demo"}
	for _, e := range []struct {
		endpoint *cloud.Endpoint
		port     int
	}{{&s.Broker, 8883}, {&s.Enroll, 8884}} {
		addr, err := freeAddress(e.port)
		if err != nil {
			return err
		}
		e.endpoint.Listen, e.endpoint.Public = addr, addr
	}
	w.fleet, err = cloud.Init(ctx, dir, cloud.InitOptions{Settings: s, Insecure: true})
	if err != nil {
		return err
	}
	w.ui.say("fleet        made in %s: role keys, certificates, signed metadata (keys without passphrase: a demonstration)", dir)
	return nil
}

// freeAddress is a loopback address: the usual port, or any that is free.
func freeAddress(port int) (string, error) {
	for _, p := range []int{port, 0} {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(p)))
		if err != nil {
			continue
		}
		addr := l.Addr().String()
		return addr, l.Close()
	}
	return "", errors.New("up: no free port on 127.0.0.1")
}
