package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/evaluate"
)

// evalFlags are the flags of eval.
type evalFlags struct {
	model        modelFlags
	data         dataFlags
	workers      int
	html, report string
	minTop1      float64
}

// eval is the verb eval.
func (a *app) eval() *cobra.Command {
	var f evalFlags
	c := &cobra.Command{
		Use: "eval MODEL DATASET", Short: "judge a model on labelled pictures", Args: exactly(2),
		Long: `Runs labelled pictures through a model in drover-infer, the program that runs
it on the device, and counts.

MODEL is a .tflite file, or name@version, name@alias or name of the registry. A
file needs no fleet.
DATASET is a folder with a folder of pictures per class; a table (.csv) with a
header, whose columns --file-column and --label-column name; or an IDX file of
pictures (…-images-idx3-ubyte), whose labels lie beside it. A folder that holds
both folders and a labels.csv is taken by its folders, unless columns are named.`,
		Example: `  drover eval mobilenet_v2_1.0_224_quant.tflite sample/labels.csv \
      --label-column index1001 --labels imagenet_labels_1001.txt --html report.html
  drover eval gate@production pictures/ --json`,
		RunE: func(c *cobra.Command, args []string) error { return a.runEval(c, args[0], args[1], &f) },
	}
	f.model.add(c.Flags())
	f.data.add(c.Flags())
	c.Flags().IntVar(&f.workers, "workers", 0, "pictures under way at once; one less run as children (default 3)")
	c.Flags().StringVar(&f.html, "html", "", "write the report as a page into this file")
	c.Flags().StringVar(&f.report, "report", "", "write the report as JSON into this file (for release --report)")
	c.Flags().Float64Var(&f.minTop1, "min-top1", 0, "gate: fail with exit code 5 below this accuracy, 0 to 1")
	return c
}

func (a *app) runEval(c *cobra.Command, modelArg, dataArg string, f *evalFlags) error {
	if f.workers < 0 || f.workers > 64 || f.minTop1 < 0 || f.minTop1 > 1 {
		return usage("", "--workers is 1 to 64, --min-top1 0 to 1")
	}
	o, err := a.host()
	if err != nil {
		return err
	}
	m, err := a.openModel(c.Context(), modelArg, &f.model, o)
	if err != nil {
		return err
	}
	set, err := f.data.open(a, dataArg)
	if err != nil {
		return err
	}
	bar := a.meter("evaluate")
	r, err := cloud.Evaluate(c.Context(), o, m.bytes, &m.spec, set, evaluate.Options{
		Workers: f.workers, SkipUnreadable: f.data.skipUnreadable, Model: m.name,
		Progress: func(done, total int) { bar.set(done, total, "") },
	})
	bar.end()
	if err != nil {
		return named(modelArg, err)
	}
	if err := saveReport(r, f.html, f.report); err != nil {
		return err
	}
	if err := a.print(r, func(w io.Writer) { reportText(w, r) }); err != nil {
		return err
	}
	if r.Top1 < f.minTop1 {
		return fmt.Errorf("%s: top-1 is %s, the gate wants %s: %w", m.name, percent(r.Top1), percent(f.minTop1), errGate)
	}
	return nil
}

// saveReport writes the report where asked for.
func saveReport(r *evaluate.Report, html, asJSON string) error {
	if html != "" {
		var page bytes.Buffer
		if err := r.HTML(&page); err != nil {
			return err
		}
		if err := writeFile(html, page.Bytes(), 0o644); err != nil {
			return err
		}
	}
	if asJSON == "" {
		return nil
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	return writeFile(asJSON, append(b, '\n'), 0o644)
}

// reportText is the report for a terminal.
func reportText(w io.Writer, r *evaluate.Report) {
	pictures := fmt.Sprintf("%s, %d pictures", r.Dataset, r.N)
	if r.Skipped > 0 {
		pictures += fmt.Sprintf(", %d unreadable ones left out", r.Skipped)
	}
	auc := ""
	if r.AUC != nil {
		auc = fmt.Sprintf("%.4f", *r.AUC)
	}
	pairs(w, "model", r.Model, "dataset", pictures,
		"top-1", fmt.Sprintf("%s  (95 %% interval: %s to %s)", percent(r.Top1), percent(r.Top1Interval[0]), percent(r.Top1Interval[1])),
		"top-5", percent(r.Top5),
		"macro", fmt.Sprintf("precision %.4f, recall %.4f, F1 %.4f", r.Macro.Precision, r.Macro.Recall, r.Macro.F1),
		"AUC", auc,
		"calibration", fmt.Sprintf("expected error %.4f", r.ECE),
		"latency", fmt.Sprintf("prepare %.2f ms, invoke %.2f ms (p99 %.2f ms)", r.Latency.Prep.P50, r.Latency.Invoke.P50, r.Latency.Invoke.P99),
		"took", fmt.Sprintf("%.1f s", r.Seconds))
	if len(r.Confused) == 0 {
		return
	}
	fmt.Fprintln(w, "\nmost frequent mistakes")
	for _, p := range r.Confused[:min(5, len(r.Confused))] {
		fmt.Fprintf(w, "  %d× %s taken for %s\n", p.N, p.ActualLabel, p.PredictedLabel)
	}
}
