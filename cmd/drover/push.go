package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
)

// push is the verb push.
func (a *app) push() *cobra.Command {
	var flags modelFlags
	c := &cobra.Command{
		Use: "push NAME MODEL.tflite", Short: "register a model that was made elsewhere", Args: exactly(2),
		Long: `Registers a .tflite classifier as the next version of NAME. How it is fed and
read is taken from its metadata, or from the flags; the device's own runtime
must run it once, or it is refused.`,
		Example: "  drover push flowers flowers.tflite --labels flowers.txt --mean 127.5 --std 127.5",
		RunE: func(c *cobra.Command, args []string) error {
			return a.withFleet(c.Context(), func(f *cloud.Fleet) error { return a.runPush(c, f, args[0], args[1], &flags) })
		},
	}
	flags.add(c.Flags())
	return c
}

func (a *app) runPush(c *cobra.Command, f *cloud.Fleet, name, path string, flags *modelFlags) error {
	if !wire.ValidName(name) {
		return usage("a to z, 0 to 9 and hyphens, at most 63", "%q is no name for a model", name)
	}
	o, err := a.host()
	if err != nil {
		return err
	}
	h, err := flags.hints()
	if err != nil {
		return err
	}
	b, err := readFile(path, wire.MaxBlob)
	if err != nil {
		return err
	}
	spec, err := cloud.Describe(c.Context(), o, b, h)
	if err != nil {
		return named(path, err)
	}
	m, err := f.Push(c.Context(), cloud.PushOptions{Name: name, Model: b, Spec: spec, Host: o})
	if err != nil {
		return err
	}
	return a.print(modelView(m), func(w io.Writer) {
		fmt.Fprintf(w, "%s is registered\n\n", m.Ref())
		describe(w, &m, int64(len(b)))
		fmt.Fprintf(w, "\nnext: drover eval %s DATASET, then drover release %s\n", m.Ref(), m.Ref())
	})
}

// describe tells how a model is fed and read.
func describe(w io.Writer, m *registry.Model, bytes int64) {
	p := m.Spec.Preprocess
	file := "sha256 " + short(m.TFLite)
	if bytes > 0 {
		file += ", " + size(bytes)
	}
	pairs(w, "  file", file,
		"  input", fmt.Sprintf("%v %s", m.Spec.Contract.Input.Shape, m.Spec.Contract.Input.DType),
		"  output", fmt.Sprintf("%d classes, %s", m.Spec.Contract.Classes(), m.Spec.Contract.Output.DType),
		"  pictures", fmt.Sprintf("%s, %s, %.4g of the sides, %s", p.Color, p.Fit, p.CropFraction, p.Interpolation),
		"  scaling", fmt.Sprintf("(pixel − %v) ÷ %v", p.Mean, p.Std),
		"  trained on", m.Dataset)
}

// modelJSON is a model as --json shows it, without the labels' length.
type modelJSON struct {
	Ref string `json:"ref"`
	registry.Model
	Released bool     `json:"released"`
	Aliases  []string `json:"aliases,omitempty"`
}

func modelView(m registry.Model) modelJSON { return modelJSON{Ref: m.Ref(), Model: m} }
