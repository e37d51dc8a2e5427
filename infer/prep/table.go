package prep

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/droverhq/drover/infer"
)

// table maps the pixel values of one channel to the tensor's elements: bytes,
// or the bits of float32 values.
type table struct {
	q [256]byte
	f [256]uint32
}

// makeTables builds one table for each channel of the input tensor.
func makeTables(spec *infer.Spec) ([]table, error) {
	_, _, ch, layout, err := spec.Contract.InputGeometry()
	if err != nil {
		return nil, err
	}
	in := spec.Contract.Input
	axis := len(in.Shape) - 1
	if layout == infer.NCHW {
		axis = 1
	}
	n := len(in.Quant.Scales)
	if in.DType != infer.Float32 && n > 1 && (len(in.Shape) != 4 || in.Quant.Axis != axis || n != ch) {
		return nil, fmt.Errorf("%w: input is quantized along dimension %d of %v, which is not its channels", ErrSpec, in.Quant.Axis, in.Shape)
	}
	tables := make([]table, ch)
	for c := range tables {
		mean := float64(pick(spec.Preprocess.Mean, c))
		std := float64(pick(spec.Preprocess.Std, c))
		for p := range 256 {
			v := (float64(p) - mean) / std
			if in.DType == infer.Float32 {
				tables[c].f[p] = math.Float32bits(float32(v))
				continue
			}
			tables[c].q[p] = quantize(v, float64(pick(in.Quant.Scales, c)), pick(in.Quant.ZeroPoints, c), in.DType)
		}
	}
	return tables, nil
}

// pick returns the value of a channel out of one per channel or one for all.
func pick[T any](v []T, channel int) T {
	if len(v) == 1 {
		return v[0]
	}
	return v[channel]
}

func quantize(v, scale float64, zero int32, t infer.DType) byte {
	q := math.Round(v/scale) + float64(zero)
	if t == infer.Int8 {
		return byte(int8(min(max(q, math.MinInt8), math.MaxInt8)))
	}
	return byte(min(max(q, 0), math.MaxUint8))
}

// picture is pixels as they stand in memory.
type picture struct {
	pix      []byte
	stride   int // bytes from row to row
	channels int
}

// tensor is how an input tensor is laid out and filled.
type tensor struct {
	width, height int
	tables        []table // one a channel
	float         bool    // else 8 bits
	planar        bool    // NCHW
	rgb           bool    // channels in the reverse order of OpenCV's
}

// fill writes the whole tensor from a picture of the tensor's size.
func (t *tensor) fill(src picture, dst []byte) {
	step, plane := len(t.tables), 1 // elements from pixel to pixel, from channel to channel
	if t.planar {
		step, plane = 1, t.height*t.width
	}
	row := t.width * src.channels
	for y := range t.height {
		line := src.pix[y*src.stride : y*src.stride+row]
		if !t.float && step == 3 && src.channels == 3 {
			t.fillColor(line, dst[y*row:(y+1)*row])
			continue
		}
		for c := range t.tables {
			pixels := line[t.source(c, src.channels):]
			at := y*t.width*step + c*plane
			if t.float {
				fillFloat(&t.tables[c].f, pixels, src.channels, dst[4*at:], 4*step)
			} else {
				fillBytes(&t.tables[c].q, pixels, src.channels, dst[at:], step)
			}
		}
	}
}

// fillColor is the usual case: three channels interleaved on both sides.
func (t *tensor) fillColor(line, out []byte) {
	t0, t1, t2 := &t.tables[0].q, &t.tables[1].q, &t.tables[2].q
	if t.rgb {
		for i := 0; i+3 <= len(line) && i+3 <= len(out); i += 3 {
			s, d := line[i:i+3:i+3], out[i:i+3:i+3]
			d[0], d[1], d[2] = t0[s[2]], t1[s[1]], t2[s[0]]
		}
		return
	}
	for i := 0; i+3 <= len(line) && i+3 <= len(out); i += 3 {
		s, d := line[i:i+3:i+3], out[i:i+3:i+3]
		d[0], d[1], d[2] = t0[s[0]], t1[s[1]], t2[s[2]]
	}
}

// fillBytes maps every n-th byte of pixels to every step-th byte of out.
func fillBytes(table *[256]byte, pixels []byte, n int, out []byte, step int) {
	for i, o := 0, 0; i < len(pixels); i, o = i+n, o+step {
		out[o] = table[pixels[i]]
	}
}

func fillFloat(table *[256]uint32, pixels []byte, n int, out []byte, step int) {
	for i, o := 0, 0; i < len(pixels); i, o = i+n, o+step {
		binary.LittleEndian.PutUint32(out[o:], table[pixels[i]])
	}
}

// source is the channel of a picture (BGR, or gray) that becomes channel c of
// the tensor.
func (t *tensor) source(c, channels int) int {
	if channels == 1 {
		return 0
	}
	if t.rgb {
		return channels - 1 - c
	}
	return c
}
