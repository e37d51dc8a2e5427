package cloud

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
)

// GoldenPicture is a decoded picture that becomes a golden input.
type GoldenPicture struct {
	Frame *camera.Frame
	Label string // for a person
}

// maxGoldenSide bounds golden pictures: they travel undecoded with every
// release.
const maxGoldenSide = 512

// GoldenFrom takes n pictures out of a set, spread over its classes, the same
// ones every time.
func GoldenFrom(ctx context.Context, set *dataset.Set, n int) ([]GoldenPicture, error) {
	perClass := max(1, n/max(1, len(set.Classes)))
	few := set.Limit(perClass)
	var out []GoldenPicture
	for i := range few.Len() {
		if len(out) == min(n, wire.MaxCases) {
			break
		}
		s := few.Sample(i)
		f, err := s.Load(ctx)
		if err != nil {
			return nil, err
		}
		if f.Width > maxGoldenSide || f.Height > maxGoldenSide {
			continue
		}
		out = append(out, GoldenPicture{f, set.Label(s)})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("cloud: golden inputs: no picture of %s is at most %d pixels a side", set.Name, maxGoldenSide)
	}
	return out, nil
}

// GoldenPatterns makes pictures out of nothing, for a model that comes without
// a set: gradients, stripes and noise exercise every input of it.
func GoldenPatterns(spec *infer.Spec) ([]GoldenPicture, error) {
	h, w, ch, _, err := spec.Contract.InputGeometry()
	if err != nil {
		return nil, err
	}
	h, w = min(h, maxGoldenSide), min(w, maxGoldenSide)
	format := camera.BGR8
	if ch == 1 {
		format = camera.Gray8
	}
	rng := rand.New(rand.NewPCG(1, 2))
	patterns := []struct {
		name string
		at   func(x, y, c int) byte
	}{
		{"gradient", func(x, y, c int) byte { return byte(255 * x / w) }},
		{"slope", func(x, y, c int) byte { return byte(255 * (x + y + c*w/3) / (2*w + h)) }},
		{"stripes", func(x, y, c int) byte { return byte(255 * (x / 4 % 2)) }},
		{"noise", func(x, y, c int) byte { return byte(rng.Uint32()) }},
	}
	var out []GoldenPicture
	for _, p := range patterns {
		f := &camera.Frame{Width: w, Height: h, Stride: w * format.Channels(), Format: format}
		for y := range h {
			for x := range w {
				for c := range format.Channels() {
					f.Data = append(f.Data, p.at(x, y, c))
				}
			}
		}
		out = append(out, GoldenPicture{f, p.name})
	}
	return out, nil
}

// goldenOf writes down what the runtime's own kernels give for the pictures,
// and what XNNPACK gives where it takes the model and differs.
func goldenOf(ctx context.Context, o host.Options, model []byte, spec *infer.Spec, pictures []GoldenPicture) (*wire.Golden, error) {
	builtin, _, err := outputsOf(ctx, o, model, spec, pictures, protocol.Builtin)
	if err != nil {
		return nil, err
	}
	fast, used, err := outputsOf(ctx, o, model, spec, pictures, protocol.XNNPACK)
	if err != nil {
		return nil, err
	}
	g := &wire.Golden{V: wire.Version}
	for i, p := range pictures {
		k := wire.GoldenCase{
			Width: p.Frame.Width, Height: p.Frame.Height, Format: p.Frame.Format.String(),
			Pixels: packed(p.Frame), Output: builtin[i], Label: p.Label,
		}
		if used == protocol.XNNPACK && !bytes.Equal(fast[i], builtin[i]) {
			k.XNNPACK = fast[i]
		}
		g.Cases = append(g.Cases, k)
	}
	return g, nil
}

// outputsOf runs the pictures by one delegate; used is the one that really ran.
func outputsOf(ctx context.Context, o host.Options, model []byte, spec *infer.Spec, pictures []GoldenPicture, by protocol.Delegate) (out [][]byte, used protocol.Delegate, err error) {
	child, err := host.Start(ctx, o)
	if err != nil {
		return nil, "", err
	}
	defer child.Close()
	loaded, err := child.Load(ctx, model, spec, protocol.Runtime{Delegate: by, Threads: 1})
	if err != nil {
		return nil, "", err
	}
	for i, p := range pictures {
		answer, err := child.Classify(ctx, p.Frame, make([]byte, spec.Contract.Output.Bytes()))
		if err != nil {
			return nil, "", fmt.Errorf("golden input %d (%s) by %s: %w", i, p.Label, by, err)
		}
		out = append(out, answer.Output)
	}
	return out, loaded.Delegate, nil
}

// packed is the pixels of a frame without the ends of its rows.
func packed(f *camera.Frame) []byte {
	row := f.Width * f.Format.Channels()
	if f.Stride == row {
		return f.Data
	}
	out := make([]byte, 0, row*f.Height)
	for y := range f.Height {
		out = append(out, f.Data[y*f.Stride:y*f.Stride+row]...)
	}
	return out
}
