package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cmd/drover/internal/up"
)

// up is the verb up.
func (a *app) up() *cobra.Command {
	o := up.Options{}
	c := &cobra.Command{
		Use: "up", Short: "run a whole fleet on this machine: broker, hub and one real device", Args: exactly(0),
		Long: `Runs a whole fleet in one process tree: the hub with its broker, and one real
droverd with real children, enrolled like any other device. The fleet stands in
DIR/fleet, the device in DIR/device; both are made if they are not there.

With --demo it then tells the story drover exists for, each step for real: it
trains a classifier on Fashion-MNIST (Debian package dataset-fashion-mnist),
quantizes, evaluates, signs and rolls it out; replaces it by a better one while
frames are answered; and has a tampered and a bad release refused. The last line
on standard output is a JSON summary.`,
		Example: `  drover up --camera /dev/video0
  drover up --camera 'folder:///srv/pictures?rate=10&loop=true'
  drover up --demo --once --dir demo`,
		RunE: func(c *cobra.Command, _ []string) error {
			program, err := a.host()
			if err != nil {
				return err
			}
			o.Programs = filepath.Dir(program.Program)
			o.In, o.Out, o.Err, o.TTY = a.in, a.out, a.errOut, terminal(a.errOut) && terminal(a.in)
			return up.Run(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "dir", "drover-up", "the folder of fleet and device")
	f.StringVar(&o.Camera, "camera", "", "the device's camera: /dev/video0, folder:///dir, file:///clip.avi, rtsp://…, http://…, gst:…")
	f.BoolVar(&o.Demo, "demo", false, "tell the whole story, on Fashion-MNIST")
	f.BoolVar(&o.Once, "once", false, "with --demo: do not ask, end after the story")
	f.StringVar(&o.Data, "data", "/usr/share/datasets/fashion-mnist", "with --demo: the folder of Fashion-MNIST")
	return c
}
