package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/rollout"
)

// rollout is the group rollout.
func (a *app) rollout() *cobra.Command {
	return group("rollout", "give a release to devices, watch it, take it back",
		a.rolloutStart(), a.rolloutList(), a.rolloutShow(), a.rolloutAbort())
}

// rolloutFlags are the flags of rollout start.
type rolloutFlags struct {
	id              string
	devices         []string
	labels          map[string]string
	percent         float64
	seed            string
	frames, seconds int
	maxFailed       float64
	deadline        time.Duration
}

func (a *app) rolloutStart() *cobra.Command {
	var f rolloutFlags
	c := &cobra.Command{
		Use: "start NAME@VERSION", Short: "begin to give a release to devices", Args: exactly(1),
		Long: `Begins to give a release (NAME@VERSION, or its path release/NAME/VERSION) to
devices: to all of them, or to those that --device names, to those whose labels
all match, and to --percent of the rest, chosen by lot; whoever fits one of the
three is in. The running hub signs the plan and publishes it.`,
		Example: "  drover rollout start gate@3 --percent 10\n  drover rollout start gate@3 --label site=north --device gate-7",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(fleet *cloud.Fleet) error { return a.runRolloutStart(c.Context(), fleet, args[0], &f) })
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.id, "id", "", "name of the rollout (default: made of model and version)")
	fl.StringArrayVar(&f.devices, "device", nil, "a device; may be repeated")
	fl.StringToStringVar(&f.labels, "label", nil, "k=v: devices with all of these labels; may be repeated")
	fl.Float64Var(&f.percent, "percent", 0, "share of all devices, 0 to 100")
	fl.StringVar(&f.seed, "seed", "", "decides which devices --percent chooses (default: the release)")
	fl.IntVar(&f.frames, "frames", 0, "frames a device must classify well before it keeps the release (default 30)")
	fl.IntVar(&f.seconds, "seconds", 0, "how long it may take for them (default 300)")
	fl.Float64Var(&f.maxFailed, "max-failed", 0, "share of devices that may fail before the rollout halts, 0 to 1 (default 0.1)")
	fl.DurationVar(&f.deadline, "deadline", 0, "when a rollout that is not done halts (default 168h)")
	return c
}

// selector says who is meant; nobody named means everybody.
func (f *rolloutFlags) selector(release string) (wire.Selector, error) {
	s := wire.Selector{Devices: f.devices, Labels: f.labels}
	switch {
	case f.id != "" && !wire.ValidName(f.id):
		return s, usage("a to z, 0 to 9 and hyphens, at most 63", "%q is no name for a rollout", f.id)
	case f.percent < 0 || f.percent > 100:
		return s, usage("", "--percent %g: wanted 0 to 100", f.percent)
	case f.frames < 0 || f.seconds < 0 || f.maxFailed < 0 || f.maxFailed > 1 || f.deadline < 0:
		return s, usage("", "--frames, --seconds and --deadline are above 0, --max-failed 0 to 1")
	case f.percent > 0:
		s.Threshold = uint64(f.percent / 100 * float64(wire.Whole))
		if s.Seed = f.seed; s.Seed == "" {
			s.Seed = release
		}
	case len(f.devices) == 0 && len(f.labels) == 0:
		s.Threshold = wire.Whole
	}
	return s, nil
}

func (a *app) runRolloutStart(ctx context.Context, fleet *cloud.Fleet, ref string, f *rolloutFlags) error {
	release := cloud.ReleaseOf(ref)
	s, err := f.selector(release)
	if err != nil {
		return err
	}
	for _, id := range f.devices {
		if _, err := fleet.Registry.Device(ctx, id); err != nil {
			return err
		}
	}
	ro, err := fleet.StartRollout(ctx, cloud.RolloutOptions{
		ID: f.id, Release: release, Waves: []rollout.Wave{{Selector: s}},
		Frames: f.frames, Seconds: f.seconds, MaxFailed: f.maxFailed, Deadline: f.deadline,
	})
	if err != nil {
		return err
	}
	return a.print(ro, func(w io.Writer) {
		fmt.Fprintf(w, "rollout %s has begun: %s to %s\n\nnext: drover rollout show %s\n", ro.ID, ro.Release, selectorText(s), ro.ID)
	})
}

func selectorText(s wire.Selector) string {
	var parts []string
	if n := len(s.Devices); n > 0 {
		parts = append(parts, "device "+strings.Join(s.Devices[:min(n, 5)], ", "))
		if n > 5 {
			parts[0] += fmt.Sprintf(" and %d more", n-5)
		}
	}
	if len(s.Labels) > 0 {
		parts = append(parts, "devices labelled "+labelsText(s.Labels))
	}
	switch {
	case s.Threshold >= wire.Whole:
		return "all devices"
	case s.Threshold > 0:
		parts = append(parts, fmt.Sprintf("about %.3g %% of all", 100*float64(s.Threshold)/float64(wire.Whole)))
	}
	return strings.Join(parts, " and ")
}

func (a *app) rolloutList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "list the rollouts, newest first", Args: exactly(0), Example: "  drover rollout list",
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				all, err := f.Rollouts(c.Context())
				if err != nil {
					return err
				}
				return a.print(all, func(w io.Writer) {
					if len(all) == 0 {
						fmt.Fprintln(w, "no rollouts; drover rollout start begins one")
						return
					}
					var rows [][]string
					for _, r := range all {
						o := r.Progress.Observed
						rows = append(rows, []string{r.ID, r.Release, r.State, fmt.Sprintf("%d/%d", o.Committed, o.Selected), fmt.Sprint(o.Failed),
							age(r.Created, time.Now())})
					}
					table(w, "ROLLOUT RELEASE STATE COMMITTED FAILED BEGUN", rows)
				})
			})
		},
	}
}

func (a *app) rolloutShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "show one rollout", Args: exactly(1), Example: "  drover rollout show gate-3-r4",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				r, err := findRollout(c.Context(), f, args[0])
				if err != nil {
					return err
				}
				return a.print(r, func(w io.Writer) { rolloutText(w, &r) })
			})
		},
	}
}

func findRollout(ctx context.Context, f *cloud.Fleet, id string) (cloud.RolloutStatus, error) {
	all, err := f.Rollouts(ctx)
	if err != nil {
		return cloud.RolloutStatus{}, err
	}
	for _, r := range all {
		if r.ID == id {
			return r, nil
		}
	}
	_, err = f.Registry.Rollout(ctx, id)
	return cloud.RolloutStatus{}, err
}

func rolloutText(w io.Writer, r *cloud.RolloutStatus) {
	var stored struct {
		Plan rollout.Plan `json:"plan"`
	}
	to := ""
	if json.Unmarshal(r.Plan, &stored) == nil && r.Progress.Wave < len(stored.Plan.Waves) {
		to = selectorText(stored.Plan.Waves[r.Progress.Wave].Selector)
	}
	o := r.Progress.Observed
	pairs(w, "rollout", r.ID, "release", r.Release, "state", r.State, "reason", r.Reason, "to", to,
		"begun", age(r.Created, time.Now()),
		"devices", fmt.Sprintf("%d selected: %d committed, %d failed, %d unreachable", o.Selected, o.Committed, o.Failed, o.Unreachable))
	for _, reason := range slices.Sorted(maps.Keys(o.Reasons)) {
		fmt.Fprintf(w, "  %d× %s\n", o.Reasons[reason], reason)
	}
}

func (a *app) rolloutAbort() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "abort ID", Short: "end a rollout: its plan is taken back", Args: exactly(1),
		Long: `Takes the plan back. Devices that have begun finish or return by themselves;
the others stay where they are.`,
		Example: "  drover rollout abort gate-3-r4 --reason 'wrong camera'",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error {
				ro, err := f.AbortRollout(c.Context(), args[0], reason)
				if err != nil {
					return err
				}
				return a.print(ro, func(w io.Writer) { fmt.Fprintf(w, "rollout %s is aborted\n", ro.ID) })
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "by an operator", "why, for people")
	return c
}
