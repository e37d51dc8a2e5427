package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
)

// modelFlags are what a person knows of a model that came from elsewhere.
type modelFlags struct {
	flags                     *pflag.FlagSet
	labels                    string
	mean, std                 []float32
	color, fit, interpolation string
	crop, threshold           float64
	topK                      int
}

func (m *modelFlags) add(f *pflag.FlagSet) {
	m.flags = f
	f.StringVar(&m.labels, "labels", "", "file with one label a line, in the order of the outputs")
	f.Float32SliceVar(&m.mean, "mean", nil, "what is taken off pixels (0 to 255): one value, or one per channel")
	f.Float32SliceVar(&m.std, "std", nil, "what pixels are then divided by: one value, or one per channel")
	f.StringVar(&m.color, "color", "", "channel order: rgb, bgr or gray")
	f.StringVar(&m.fit, "fit", "", "how other aspect ratios are treated: crop, stretch or letterbox")
	f.Float64Var(&m.crop, "crop", 0, "share of the picture's sides that is kept, above 0 to 1 (0.875 is usual for ImageNet)")
	f.StringVar(&m.interpolation, "interpolation", "", "resampler: area, antialias, bilinear or nearest")
	f.IntVar(&m.topK, "top-k", 0, "answers a result holds (default 5)")
	f.Float64Var(&m.threshold, "threshold", 0, "score below which the answer is unsure, 0 to 1")
}

// given names the flags that were set.
func (m *modelFlags) given() []string {
	var out []string
	for _, name := range []string{"labels", "mean", "std", "color", "fit", "crop", "interpolation", "top-k", "threshold"} {
		if m.flags.Changed(name) {
			out = append(out, "--"+name)
		}
	}
	return out
}

func (m *modelFlags) hints() (cloud.SpecHints, error) {
	h := cloud.SpecHints{
		Mean: m.mean, Std: m.std, Color: infer.Color(m.color), Fit: infer.Fit(m.fit), CropFraction: m.crop,
		Interpolation: infer.Interpolation(m.interpolation), TopK: m.topK, Threshold: m.threshold,
	}
	if m.crop < 0 || m.crop > 1 || m.topK < 0 || m.threshold < 0 || m.threshold > 1 {
		return h, usage("", "--crop is above 0 to 1, --top-k 1 or more, --threshold 0 to 1")
	}
	for name, v := range map[string]struct {
		value  string
		choice []string
	}{
		"--color": {m.color, []string{"rgb", "bgr", "gray"}}, "--fit": {m.fit, []string{"crop", "stretch", "letterbox"}},
		"--interpolation": {m.interpolation, []string{"area", "antialias", "bilinear", "nearest"}},
	} {
		if !oneOf(v.value, append(v.choice, "")) {
			return h, usage("one of: "+strings.Join(v.choice, ", "), "%s %q is not known", name, v.value)
		}
	}
	if m.labels == "" {
		return h, nil
	}
	var err error
	h.Labels, err = readLabels(m.labels)
	return h, err
}

func oneOf(v string, choice []string) bool {
	for _, c := range choice {
		if v == c {
			return true
		}
	}
	return false
}

// readLabels reads one label a line. Empty lines at the end are not labels.
func readLabels(path string) ([]string, error) {
	b, err := readFile(path, infer.MaxClasses*(infer.MaxLabelBytes+2))
	if err != nil {
		return nil, err
	}
	text := strings.TrimRight(strings.TrimPrefix(string(b), "\ufeff"), "\r\n \t")
	if text == "" {
		return nil, usage("one label a line, in the order of the model's outputs", "%s holds no labels", path)
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	return lines, nil
}

// model is a model that a command works on.
type model struct {
	name  string
	bytes []byte
	spec  infer.Spec
}

// isFile says whether an argument means a file rather than name@version.
func isFile(arg string) bool {
	if _, err := os.Stat(arg); err == nil {
		return true
	}
	return strings.HasSuffix(arg, ".tflite") || strings.ContainsRune(arg, filepath.Separator)
}

// openModel reads a .tflite file, or fetches name@version out of the registry.
func (a *app) openModel(ctx context.Context, arg string, flags *modelFlags, o host.Options) (model, error) {
	if isFile(arg) {
		h, err := flags.hints()
		if err != nil {
			return model{}, err
		}
		b, err := readFile(arg, wire.MaxBlob)
		if err != nil {
			return model{}, err
		}
		spec, err := cloud.Describe(ctx, o, b, h)
		return model{filepath.Base(arg), b, spec}, named(arg, err)
	}
	if g := flags.given(); len(g) > 0 {
		return model{}, usage("push the file again with other flags to change how it is fed",
			"%s belong to a .tflite file; %s was registered with its description", strings.Join(g, ", "), arg)
	}
	var out model
	err := a.withFleet(ctx, func(f *cloud.Fleet) error {
		m, err := f.Registry.ModelByRef(ctx, arg)
		if err != nil {
			return err
		}
		out.name, out.spec = m.Ref(), m.Spec
		out.bytes, err = f.Registry.ReadBlob(ctx, m.TFLite, wire.MaxBlob)
		return err
	})
	return out, err
}
