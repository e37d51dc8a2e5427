// Package up is "drover up": a whole fleet in one process tree on one machine.
// It makes a fleet folder if there is none, runs the hub with its embedded
// broker, and enrols one real device daemon with real children. With Demo it
// then tells the story that drover exists for, each step for real, and sums it
// up.
package up

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/infer/host"
)

// Options say what to bring up.
type Options struct {
	Dir      string // holds fleet/, device/ and, for the demo, pictures/
	Camera   string // source URL; needed without Demo
	Demo     bool
	Once     bool   // with Demo: do not ask, end after the story
	Data     string // with Demo: folder of Fashion-MNIST
	Programs string // folder of droverd, drover-camera and drover-infer
	In       io.Reader
	Out      io.Writer // the summary, nothing else
	Err      io.Writer // progress and words
	TTY      bool      // Err is a terminal
}

// deviceName is the one device of the fleet.
const deviceName = "camera-1"

// world is everything that was brought up.
type world struct {
	opts   Options
	ui     *ui
	fleet  *cloud.Fleet
	hub    *cloud.Hub
	device *device
	events *events
	log    *slog.Logger
	told   bool // the story came to its end
}

// Run brings everything up and, without Once, stays until ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	if o.Camera == "" && !o.Demo {
		return errors.New("up: no camera: give --camera /dev/video0, folder:///dir, rtsp://…, or --demo")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	w := &world{opts: o, ui: newUI(o.Err, o.TTY), events: newEvents()}
	defer w.ui.close()
	if err := w.folder(); err != nil {
		return err
	}
	logFile, err := os.OpenFile(filepath.Join(o.Dir, "hub.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("up: %w", err)
	}
	defer logFile.Close()
	w.log = slog.New(slog.NewTextHandler(logFile, nil))
	if err := w.openFleet(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.fleet.Close()) }()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	if w.hub, err = cloud.NewHub(ctx, w.fleet, cloud.HubOptions{Logger: w.log, Observe: w.events.add}); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	g.Go(func() error { return w.hub.Run(ctx) })
	g.Go(func() error {
		defer cancel()
		return w.tell(ctx)
	})
	err = g.Wait()
	if errors.Is(err, context.Canceled) || err == nil {
		if o.Demo && !w.told {
			return fmt.Errorf("up: the story was interrupted: %w", context.Canceled)
		}
		return nil
	}
	return err
}

// tell starts the device and, for the demo, tells the story.
func (w *world) tell(ctx context.Context) (err error) {
	if w.opts.Demo {
		if err := w.pictures(ctx); err != nil {
			return err
		}
	}
	if w.device, err = w.startDevice(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.device.stop()) }()
	w.ui.say("status page  %s", w.device.url())
	stop := w.ui.live(ctx, w.device)
	defer stop()
	if !w.opts.Demo {
		w.ui.say("fleet        %s", w.fleet.Dir)
		w.ui.say("next         drover --fleet %s push NAME MODEL.tflite --labels LABELS.txt", w.fleet.Dir)
		return w.stay(ctx)
	}
	s := &story{world: w, began: time.Now()}
	summary, err := s.run(ctx)
	if err != nil {
		return err
	}
	stop()
	w.ui.close()
	if err := summary.print(w.opts.Out); err != nil {
		return err
	}
	w.told = true
	if w.opts.Once {
		return nil
	}
	w.ui.say("everything stays up until Ctrl-C; the status page is %s", w.device.url())
	return w.stay(ctx)
}

// stay waits until the user or the device ends it.
func (w *world) stay(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-w.device.exited:
		return fmt.Errorf("up: droverd ended: %s", w.device.lastWords())
	}
}

func (w *world) host() host.Options {
	return host.Options{Program: filepath.Join(w.opts.Programs, host.ProgramName), Logger: w.log}
}
