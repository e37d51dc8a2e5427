package main

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// run is the program without its process: what it is told comes in as
// arguments, what it says goes to the writers, the exit code comes back.
func run(args []string, in io.Reader, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	// After the first signal the default is back: a second one ends a program
	// that takes its time.
	defer context.AfterFunc(ctx, stop)()
	a := &app{in: in, out: out, errOut: errOut}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && !a.started {
		err = asUsage(err) // cobra's own: an unknown command or flag
	}
	if err == nil {
		return exitOK
	}
	c := classify(err, ctx.Err() != nil)
	a.complain(err, c)
	return c.code
}

const long = `drover takes an image classifier from a labelled folder to a fleet of cameras.

  drover init fleet                                  make a fleet (keys, certificates, settings)
  drover train pictures/ --name gate                 train a classifier, judge it, register it
  drover eval gate@1 other-pictures/                 judge it on other pictures
  drover release gate@1                              make it a signed release
  drover hub                                         serve the fleet: broker, enrolment, rollouts
  drover enroll                                      a token for one new device
  drover rollout start gate@1                        give it to the devices
  drover devices list                                see what became of it

Commands that need a fleet take it from --fleet, from DROVER_FLEET, from the
present folder if it holds fleet.yaml, or else from ./fleet.
With --json, standard output carries one JSON value and nothing else.`

// root builds the tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "drover", Short: "from a labelled folder to a fleet of cameras", Long: long,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			a.started = true
			return nil
		},
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(fmt.Sprintf("%s --help lists the flags", c.CommandPath()), "%s", err)
	})
	f := root.PersistentFlags()
	f.StringVar(&a.fleetDir, "fleet", "", "the fleet's folder (default: $DROVER_FLEET, . or ./fleet)")
	f.StringVar(&a.keys, "keys", "", "the folder of the owner's keys, e.g. a USB stick (default: $DROVER_KEYS, or keys in the fleet's folder)")
	f.BoolVar(&a.json, "json", false, "print one JSON value on standard output")
	f.StringVar(&a.programs, "programs", "", "the folder of drover-infer (default: beside drover, then PATH)")
	root.AddGroup(
		&cobra.Group{ID: "models", Title: "Models:"},
		&cobra.Group{ID: "fleet", Title: "Fleet:"},
	)
	add := func(group string, cs ...*cobra.Command) {
		for _, c := range cs {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("models", a.train(), a.eval(), a.push(), a.models(), a.release(), a.bundle(), a.verify())
	add("fleet", a.up(), a.initFleet(), a.hub(), a.enroll(), a.devices(), a.rollout(), a.keysGroup(), a.ca(), a.brokerConfig())
	root.AddCommand(a.version(), exitCodesTopic())
	root.InitDefaultCompletionCmd("completion")
	return root
}

// group is a command that only holds others.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usage(c.CommandPath()+" --help lists its verbs", "%s: unknown verb %q", c.CommandPath(), args[0])
		}
		return nil
	}}
	c.RunE = func(c *cobra.Command, _ []string) error {
		return usage(c.CommandPath()+" --help lists its verbs", "%s: a verb is missing", c.CommandPath())
	}
	c.AddCommand(children...)
	return c
}

// exactly wants one argument for each word in capitals of the command's Use.
func exactly(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return usage("usage: "+c.UseLine(), "%s: %d arguments given, %d wanted", c.CommandPath(), len(args), n)
	}
}
