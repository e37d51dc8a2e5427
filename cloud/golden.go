package cloud

import (
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

// goldenOf runs the pictures through the runtime's own kernels and writes down
// what they give.
func goldenOf(ctx context.Context, o host.Options, model []byte, spec *infer.Spec, pictures []GoldenPicture) (*wire.Golden, error) {
	child, err := host.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	defer child.Close()
	if _, err := child.Load(ctx, model, spec, protocol.Runtime{Delegate: protocol.Builtin, Threads: 1}); err != nil {
		return nil, err
	}
	g := &wire.Golden{V: wire.Version}
	for i, p := range pictures {
		answer, err := child.Classify(ctx, p.Frame, make([]byte, spec.Contract.Output.Bytes()))
		if err != nil {
			return nil, fmt.Errorf("golden input %d (%s): %w", i, p.Label, err)
		}
		g.Cases = append(g.Cases, wire.GoldenCase{
			Width: p.Frame.Width, Height: p.Frame.Height, Format: p.Frame.Format.String(),
			Pixels: packed(p.Frame), Output: answer.Output, Label: p.Label,
		})
	}
	return g, nil
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
