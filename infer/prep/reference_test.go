//go:build cgo

package prep

import (
	"fmt"
	"image"
	"math"
	"testing"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

// reference is the package comment, step by step, slowly: pixel values of an
// input of outW × outH in the order of spec's colour.
func reference(f *camera.Frame, p *infer.Preprocess, outW, outH, channels int) []float64 {
	ch := f.Format.Channels()
	rect := region(p, f.Width, f.Height, outW, outH)
	at := placed(p, rect, outW, outH)
	sx, sy := float64(rect.Dx())/float64(at.Dx()), float64(rect.Dy())/float64(at.Dy())
	pixel := func(x, y, c int) float64 {
		x, y = min(max(x, 0), rect.Dx()-1), min(max(y, 0), rect.Dy()-1)
		return float64(f.Data[(rect.Min.Y+y)*f.Stride+(rect.Min.X+x)*ch+c])
	}
	sample := func(x, y, c int) float64 {
		switch {
		case p.Interpolation == infer.Nearest:
			return pixel(int(float64(x)*sx), int(float64(y)*sy), c)
		case p.Interpolation == infer.Area && sx >= 1 && sy >= 1:
			return average(pixel, float64(x)*sx, float64(y)*sy, sx, sy, c)
		case p.Interpolation == infer.Antialias:
			return triangle(pixel, rect.Size(), (float64(x)+0.5)*sx, (float64(y)+0.5)*sy, max(sx, 1), max(sy, 1), c)
		}
		fx, fy := (float64(x)+0.5)*sx-0.5, (float64(y)+0.5)*sy-0.5
		ix, iy := math.Floor(fx), math.Floor(fy)
		fx, fy = fx-ix, fy-iy
		x0, y0 := int(ix), int(iy)
		return (pixel(x0, y0, c)*(1-fx)+pixel(x0+1, y0, c)*fx)*(1-fy) +
			(pixel(x0, y0+1, c)*(1-fx)+pixel(x0+1, y0+1, c)*fx)*fy
	}
	out := make([]float64, outW*outH*channels)
	for i := range out {
		out[i] = float64(p.Pad)
	}
	for y := range at.Dy() {
		for x := range at.Dx() {
			o := out[((at.Min.Y+y)*outW+at.Min.X+x)*channels:]
			switch {
			case ch == 1:
				for c := range channels {
					o[c] = sample(x, y, 0)
				}
			case channels == 1:
				o[0] = 0.114*sample(x, y, 0) + 0.587*sample(x, y, 1) + 0.299*sample(x, y, 2)
			default:
				for c := range 3 {
					from := c
					if p.Color == infer.RGB {
						from = 2 - c
					}
					o[c] = sample(x, y, from)
				}
			}
		}
	}
	return out
}

// average is the mean over a rectangle, pixels at its edges by their share.
func average(pixel func(x, y, c int) float64, x0, y0, w, h float64, c int) float64 {
	sum := 0.0
	for y := math.Floor(y0); y < y0+h; y++ {
		wy := min(y+1, y0+h) - max(y, y0)
		for x := math.Floor(x0); x < x0+w; x++ {
			wx := min(x+1, x0+w) - max(x, x0)
			sum += pixel(int(x), int(y), c) * wx * wy
		}
	}
	return sum / (w * h)
}

// triangle is the mean weighted by closeness, of pixels inside the picture.
func triangle(pixel func(x, y, c int) float64, size image.Point, cx, cy, halfX, halfY float64, c int) float64 {
	sum, all := 0.0, 0.0
	for y := range size.Y {
		for x := range size.X {
			w := max(0, 1-math.Abs(float64(x)+0.5-cx)/halfX) * max(0, 1-math.Abs(float64(y)+0.5-cy)/halfY)
			sum += w * pixel(x, y, c)
			all += w
		}
	}
	return sum / all
}

// scene is a smooth picture with some noise.
func scene(format camera.PixelFormat, w, h int) *camera.Frame {
	ch := format.Channels()
	f := &camera.Frame{Width: w, Height: h, Stride: w * ch, Format: format, Data: make([]byte, w*h*ch)}
	noise := uint32(1)
	for i := range f.Data {
		x, y := i/ch%w, i/ch/w
		noise = noise*1664525 + 1013904223
		f.Data[i] = byte(128 + 90*math.Sin(float64(x+3*(i%ch))/7)*math.Cos(float64(y)/5) + float64(noise>>27))
	}
	return f
}

func TestPrepareAgainstReference(t *testing.T) {
	compared := 0
	for _, format := range []camera.PixelFormat{camera.BGR8, camera.Gray8} {
		for _, size := range [][2]int{{64, 48}, {31, 57}, {20, 20}, {9, 5}} {
			f := padded(scene(format, size[0], size[1]), 3)
			for _, shape := range [][]int{{1, 20, 20, 3}, {1, 20, 20, 1}, {1, 17, 29, 3}} {
				for _, fit := range []infer.Fit{infer.Stretch, infer.Crop, infer.Letterbox} {
					for _, inter := range []infer.Interpolation{infer.Antialias, infer.Bilinear, infer.Area, infer.Nearest} {
						for _, color := range []infer.Color{infer.RGB, infer.BGR} {
							spec := specOf(raw(shape...))
							spec.Preprocess.Fit, spec.Preprocess.Interpolation, spec.Preprocess.CropFraction, spec.Preprocess.Pad = fit, inter, 0.875, 7
							if shape[3] == 3 {
								spec.Preprocess.Color = color
							}
							name := fmt.Sprintf("%v %v to %v, %s, %s, %s", format, size, shape, fit, inter, spec.Preprocess.Color)
							tolerance := 1.01
							if format == camera.BGR8 && shape[3] == 1 {
								tolerance = 1.6 // resized pixels are rounded, then luma is
							}
							compare(t, name, tolerance, prepare(t, spec, f), reference(f, &spec.Preprocess, shape[2], shape[1], shape[3]))
							compared++
						}
					}
				}
			}
		}
	}
	if compared < 400 {
		t.Errorf("only %d cases", compared)
	}
}

func compare(t *testing.T, name string, tolerance float64, got []byte, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	for i := range got {
		if d := math.Abs(float64(got[i]) - want[i]); d > tolerance {
			t.Errorf("%s: value %d is %d, reference %.2f", name, i, got[i], want[i])
			return
		}
	}
}
