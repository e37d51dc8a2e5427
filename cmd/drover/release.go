package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/evaluate"
)

// releaseFlags are the flags of release.
type releaseFlags struct {
	data          dataFlags
	golden, notes string
	report, out   string
	pending       string
	count         int
	tolerance     int
	epoch         uint64
	latency       time.Duration
	memory        int64
	noDelta       bool
	deltaFrom     []string
}

// release is the verb release.
func (a *app) release() *cobra.Command {
	var f releaseFlags
	c := &cobra.Command{
		Use: "release NAME@VERSION", Short: "make a registered model a signed release", Args: exactly(1),
		Long: `Measures what the model answers to golden inputs, writes the manifest, and
signs it with the models key. Devices try the golden inputs before they take the
release. They hear of it only by rollout start.

Golden inputs are pictures of --golden, spread over its classes, or made-up
patterns.

Devices that run one of the last three releases of the model fetch a delta where
that saves a tenth or more.`,
		Example: "  drover release gate@3 --golden pictures/ --max-latency 40ms --report gate-3.json --notes 'more night pictures'",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(fleet *cloud.Fleet) error { return a.runRelease(c.Context(), fleet, args[0], &f) })
		},
	}
	f.data.add(c.Flags())
	fl := c.Flags()
	fl.StringVar(&f.golden, "golden", "", "labelled pictures for golden inputs (as DATASET of eval)")
	fl.IntVar(&f.count, "golden-count", 8, fmt.Sprintf("how many of them, 1 to %d", wire.MaxCases))
	fl.Uint64Var(&f.epoch, "epoch", 0, "security epoch: devices that committed it never go below it again")
	fl.StringVar(&f.notes, "notes", "", "what is new, for people")
	fl.DurationVar(&f.latency, "max-latency", 0, "budget: p99 of one inference on the device, e.g. 40ms")
	fl.Int64Var(&f.memory, "max-memory", 0, "budget: MiB the child may take on the device")
	fl.IntVar(&f.tolerance, "tolerance", 0, "quanta an output may differ from the golden one, 1 to 8 (default 2)")
	fl.StringVar(&f.report, "report", "", "evaluation report (JSON of eval --report) that belongs to the release")
	fl.BoolVar(&f.noDelta, "no-delta", false, "make no deltas: every device fetches the whole model")
	fl.StringSliceVar(&f.deltaFrom, "delta-from", nil, "released `models` (NAME@VERSION) to make deltas from (default the last three releases of the name)")
	fl.StringVar(&f.out, "out", "", "write the signed manifest into this file too")
	fl.StringVar(&f.pending, "pending", "", "several people must sign: leave what they sign in this file (see keys sign)")
	return c
}

func (f *releaseFlags) options(ref string) (cloud.ReleaseOptions, error) {
	o := cloud.ReleaseOptions{
		Model: ref, NoDelta: f.noDelta, DeltaFrom: f.deltaFrom, Tolerance: f.tolerance, Epoch: f.epoch, Notes: f.notes,
		Budget: wire.Budget{LatencyP99Micros: f.latency.Microseconds(), MemoryBytes: f.memory << 20},
	}
	if f.latency < 0 || f.memory < 0 || f.tolerance < 0 || f.tolerance > 8 || f.count < 1 || f.count > wire.MaxCases {
		return o, usage("", "budgets are 0 or more, --tolerance 1 to 8, --golden-count 1 to %d", wire.MaxCases)
	}
	if f.noDelta && len(f.deltaFrom) > 0 {
		return o, usage("", "--no-delta and --delta-from exclude each other")
	}
	if f.report == "" {
		return o, nil
	}
	b, err := readFile(f.report, wire.MaxBlob)
	if err != nil {
		return o, err
	}
	var r evaluate.Report
	if err := json.Unmarshal(b, &r); err != nil || r.N == 0 {
		return o, usage("drover eval --report FILE writes one", "%s is no evaluation report", f.report)
	}
	o.Report = b
	return o, nil
}

func (a *app) runRelease(ctx context.Context, fleet *cloud.Fleet, ref string, f *releaseFlags) error {
	o, err := f.options(ref)
	if err != nil {
		return err
	}
	if _, err := fleet.Registry.ModelByRef(ctx, ref); err != nil {
		return err
	}
	if o.Unsigned = f.pending != ""; !o.Unsigned {
		if o.Passphrase, err = a.passphrase(func(p string) error { return fleet.CheckKey(wire.RoleModels, p) }); err != nil {
			return err
		}
	}
	if o.Host, err = a.host(); err != nil {
		return err
	}
	if f.golden != "" {
		set, err := f.data.open(a, f.golden)
		if err != nil {
			return err
		}
		if o.Golden, err = cloud.GoldenFrom(ctx, set, f.count); err != nil {
			return err
		}
	}
	rel, err := fleet.Release(ctx, o)
	if err != nil {
		return err
	}
	m, err := fleet.Manifest(ctx, rel.Path)
	if err != nil {
		return err
	}
	if f.out != "" {
		raw, err := fleet.Registry.ReadBlob(ctx, rel.Manifest, wire.MaxManifest)
		if err != nil {
			return err
		}
		if err := writeFile(f.out, raw, 0o644); err != nil {
			return err
		}
	}
	if o.Unsigned {
		d, err := fleet.DraftRelease(ctx, rel.Path)
		if err != nil {
			return err
		}
		return a.settle(ctx, fleet, d, wire.RoleModels, f.pending)
	}
	return a.print(rel, func(w io.Writer) {
		v := m.Variants[0]
		fmt.Fprintf(w, "%s is signed\n\n", rel.Path)
		pairs(w, "  manifest", "sha256 "+short(rel.Manifest), "  model", size(v.Model.Size),
			"  golden", fmt.Sprintf("%s, tolerance %d", size(v.Golden.Size), v.Tolerance), "  epoch", fmt.Sprint(rel.Epoch),
			"  deltas", deltas(v),
			"  budget", budget(m.Budget), "  notes", m.Notes, "  file", f.out)
		fmt.Fprintf(w, "\nnext: drover rollout start %s@%d\n", rel.Model, rel.Version)
	})
}

// deltas says what devices save that hold one of the bases.
func deltas(v wire.Variant) string {
	var parts []string
	for _, d := range v.Deltas {
		parts = append(parts, fmt.Sprintf("%s from %s", size(d.Blob.Size), short(d.Base)))
	}
	return strings.Join(parts, ", ")
}

func budget(b wire.Budget) string {
	var parts []string
	if b.LatencyP99Micros > 0 {
		parts = append(parts, fmt.Sprintf("p99 %v", time.Duration(b.LatencyP99Micros)*time.Microsecond))
	}
	if b.MemoryBytes > 0 {
		parts = append(parts, fmt.Sprintf("%d MiB", b.MemoryBytes>>20))
	}
	return strings.Join(parts, ", ")
}
