package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/cloud/evaluate"
	"github.com/droverhq/drover/cloud/train"
	"github.com/droverhq/drover/infer/host"
)

// trainFlags are the flags of train.
type trainFlags struct {
	data                            dataFlags
	name, preset, test, out, labels string
	html, report                    string
	epochs, side                    int
	seed                            uint64
	heldOut                         float64
	parents                         []string
}

// train is the verb train.
func (a *app) train() *cobra.Command {
	var f trainFlags
	c := &cobra.Command{
		Use: "train DATASET", Short: "train a classifier on labelled pictures, judge it, register it", Args: exactly(1),
		Long: `Trains a small int8 classifier and judges it, in drover-infer, on pictures it
was not trained on: those of --test, or a part that is held out (copies of a
picture are never on both sides). DATASET is as for eval.

With --name it is registered in the fleet as the next version of that name,
with its lineage: the digest of the pictures, recipe, seed, and measured
accuracy. With --out it is written to a file. One of the two is needed. The same
pictures, flags and seed give the same bytes.`,
		Example: `  drover train pictures/ --name gate
  drover train train-images-idx3-ubyte.gz --test t10k-images-idx3-ubyte.gz --preset good --out fashion.tflite`,
		RunE: func(c *cobra.Command, args []string) error { return a.runTrain(c.Context(), args[0], &f) },
	}
	f.data.add(c.Flags())
	fl := c.Flags()
	fl.StringVar(&f.name, "name", "", "register the model under this name")
	fl.StringVar(&f.out, "out", "", "write the .tflite into this file")
	fl.StringVar(&f.preset, "preset", "quick", "quick, or good: better, and a few times slower")
	fl.Uint64Var(&f.seed, "seed", 1, "of everything that is drawn by lot")
	fl.IntVar(&f.epochs, "epochs", 0, "passes over the pictures (default: the preset's)")
	fl.IntVar(&f.side, "side", 0, "height and width of the model's input (default: the pictures', at most 64)")
	fl.StringVar(&f.test, "test", "", "labelled pictures to judge by (default: a part of DATASET is held out)")
	fl.Float64Var(&f.heldOut, "held-out", 0.2, "share that is held out where there is no --test")
	fl.StringVar(&f.labels, "labels", "", "file with one label a line, for a set whose classes are numbers")
	fl.StringSliceVar(&f.parents, "parent", nil, "name@version this one succeeds, for the lineage")
	fl.StringVar(&f.html, "html", "", "write the evaluation as a page into this file")
	fl.StringVar(&f.report, "report", "", "write the evaluation as JSON into this file (for release --report)")
	return c
}

func (f *trainFlags) spec() (train.Spec, error) {
	s, err := train.Preset(f.preset)
	if err != nil {
		return s, err
	}
	switch {
	case f.name == "" && f.out == "":
		return s, usage("--name NAME registers the model, --out FILE writes it", "where is the model to go?")
	case f.name != "" && !wire.ValidName(f.name):
		return s, usage("a to z, 0 to 9 and hyphens, at most 63", "%q is no name for a model", f.name)
	case f.epochs < 0 || f.side < 0 || !(f.heldOut > 0 && f.heldOut < 1):
		return s, usage("", "--epochs and --side are 1 or more, --held-out between 0 and 1")
	}
	s.Seed, s.Height, s.Width = f.seed, f.side, f.side
	if f.epochs > 0 {
		s.Epochs = f.epochs
	}
	return s, nil
}

// sets gives the pictures to train on and those to judge by.
func (a *app) sets(ctx context.Context, path string, f *trainFlags) (fit, test *dataset.Set, err error) {
	set, err := f.data.open(a, path)
	if err != nil {
		return nil, nil, err
	}
	if f.test == "" {
		return cloud.HoldOut(ctx, set, f.heldOut, f.seed)
	}
	others := f.data
	others.limit = 0
	test, err = others.open(a, f.test)
	return set, test, err
}

func (a *app) runTrain(ctx context.Context, path string, f *trainFlags) error {
	spec, err := f.spec()
	if err != nil {
		return err
	}
	o, err := a.host()
	if err != nil {
		return err
	}
	if f.name != "" { // a fleet that is not there is found before the training
		if err := a.withFleet(ctx, func(*cloud.Fleet) error { return nil }); err != nil {
			return err
		}
	}
	fit, test, err := a.sets(ctx, path, f)
	if err != nil {
		return err
	}
	art, err := a.fit(ctx, fit, test, spec, f, o)
	if err != nil {
		return err
	}
	bar := a.meter("evaluate")
	report, err := cloud.EvaluateModel(ctx, o, art.TFLite, &art.Spec, test, func(done, total int) { bar.set(done, total, "") })
	bar.end()
	if err != nil {
		return err
	}
	return a.keep(ctx, art, report, f, o)
}

// fit trains, with bars.
func (a *app) fit(ctx context.Context, set, test *dataset.Set, spec train.Spec, f *trainFlags, o host.Options) (*train.Artifact, error) {
	options := cloud.TrainOptions{Set: set, Test: test, Spec: spec, Host: o}
	if f.labels != "" {
		var err error
		if options.Labels, err = readLabels(f.labels); err != nil {
			return nil, err
		}
	}
	prepare := a.meter("prepare")
	var fitting *meter
	options.OnPrepare = func(done, total int) { prepare.set(done, total, "") }
	options.OnTrain = func(p train.Progress) {
		if fitting == nil {
			prepare.end()
			fitting = a.meter("train")
		}
		fitting.set(p.PicturesSeen, p.PicturesPlanned,
			fmt.Sprintf("epoch %d/%d  loss %.3f  accuracy %.1f %%  %.0f/s", p.Epoch, p.Epochs, p.Loss, 100*p.Accuracy, p.PicturesPerSec))
	}
	art, err := cloud.Train(ctx, options)
	if fitting == nil {
		prepare.end()
	} else {
		fitting.end()
	}
	return art, err
}

// keep writes the model where it was asked for and gives the answer.
func (a *app) keep(ctx context.Context, art *train.Artifact, r *evaluate.Report, f *trainFlags, o host.Options) error {
	r.Model = f.name
	answer := struct {
		Ref     string        `json:"ref,omitempty"`
		File    string        `json:"file,omitempty"`
		Bytes   int           `json:"bytes"`
		N       int           `json:"n"`
		Top1    float64       `json:"top1"`
		Top5    float64       `json:"top5"`
		F1      float64       `json:"macro_f1"`
		Lineage train.Lineage `json:"lineage"`
	}{File: f.out, Bytes: len(art.TFLite), N: r.N, Top1: r.Top1, Top5: r.Top5, F1: r.Macro.F1, Lineage: art.Lineage}
	if f.out != "" {
		if err := writeFile(f.out, art.TFLite, 0o644); err != nil {
			return err
		}
	}
	if f.name != "" {
		err := a.withFleet(ctx, func(fleet *cloud.Fleet) error {
			m, err := fleet.Push(ctx, cloud.PushOptions{
				Name: f.name, Model: art.TFLite, Spec: art.Spec, Dataset: art.Lineage.DatasetDigest,
				Lineage: art.Lineage, Metrics: cloud.Summary(r), Parents: f.parents, Host: o,
			})
			answer.Ref = m.Ref()
			return err
		})
		if err != nil {
			return err
		}
		r.Model = answer.Ref
	}
	if err := saveReport(r, f.html, f.report); err != nil {
		return err
	}
	return a.print(answer, func(w io.Writer) {
		pairs(w, "model", answer.Ref, "file", f.out, "size", size(int64(len(art.TFLite))),
			"trained on", fmt.Sprintf("%d pictures, %d parameters, %.0f pictures/s", art.Lineage.Pictures, art.Lineage.Parameters, art.Lineage.PicturesPerSec))
		fmt.Fprintln(w)
		reportText(w, r)
		if answer.Ref != "" {
			fmt.Fprintf(w, "\nnext: drover release %s\n", answer.Ref)
		}
	})
}
