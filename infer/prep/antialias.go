package prep

import (
	"image"
	"math"
)

// Fixed point of the antialias resampler: weights have weightBits fractional
// bits, pixels between the two passes keepBits. Integers, because floating
// point rounds differently where the processor fuses multiply and add.
const (
	weightBits = 14
	keepBits   = 6
)

// tap is what one output pixel takes along one side: weights of consecutive
// input pixels that sum to 1<<weightBits.
type tap struct {
	first   int
	weights []int32
}

// makeTaps computes the triangle filter from in to out pixels. Its half width
// is one input pixel when growing, which is bilinear, and as many as become one
// output pixel when shrinking.
func makeTaps(in, out int) []tap {
	scale := float64(in) / float64(out)
	half := max(scale, 1)
	taps := make([]tap, out)
	for i := range taps {
		center := (float64(i) + 0.5) * scale
		first := max(int(math.Floor(center-half)), 0)
		last := min(int(math.Ceil(center+half)), in)
		real := make([]float64, 0, last-first)
		sum := 0.0
		for j := first; j < last; j++ {
			w := max(0, 1-math.Abs(float64(j)+0.5-center)/half)
			real = append(real, w)
			sum += w
		}
		taps[i] = fixed(first, real, sum)
	}
	return taps
}

// fixed rounds so that the sum stays exact: a flat picture keeps its value.
func fixed(first int, real []float64, sum float64) tap {
	t := tap{first: first, weights: make([]int32, len(real))}
	done, given := 0.0, int32(0)
	for i, w := range real {
		done += w
		upTo := int32(math.Round(done / sum * (1 << weightBits)))
		t.weights[i] = upTo - given
		given = upTo
	}
	return t
}

// antialias resamples with a triangle filter. Its buffers are reused; it is for
// one goroutine at a time.
type antialias struct {
	from, to image.Point
	channels int
	x, y     []tap
	acc      []int32  // one row of input width
	row      []uint16 // the same, keepBits fractional bits
	out      []byte
}

// shape makes the tables for a picture of channels from size to size.
func (a *antialias) shape(from, to image.Point, channels int) {
	if a.from == from && a.to == to && a.channels == channels {
		return
	}
	*a = antialias{
		from: from, to: to, channels: channels,
		x: makeTaps(from.X, to.X), y: makeTaps(from.Y, to.Y),
		acc: make([]int32, from.X*channels),
		row: make([]uint16, from.X*channels),
		out: make([]byte, to.X*to.Y*channels),
	}
}

// resize shrinks or enlarges; the result is valid until the next call.
func (a *antialias) resize(src picture) picture {
	width := a.to.X * a.channels
	for i := range a.y {
		a.down(src, &a.y[i])
		a.along(a.out[i*width : (i+1)*width])
	}
	return picture{pix: a.out, stride: width, channels: a.channels}
}

// down sums the rows of one output row.
func (a *antialias) down(src picture, t *tap) {
	acc := a.acc
	for i := range acc {
		acc[i] = 1 << (weightBits - keepBits - 1)
	}
	for j, w := range t.weights {
		if w == 0 {
			continue
		}
		line := src.pix[(t.first+j)*src.stride:][:len(acc)]
		for i, p := range line {
			acc[i] += w * int32(p)
		}
	}
	for i, v := range acc {
		a.row[i] = uint16(v >> (weightBits - keepBits))
	}
}

// along sums along the row.
func (a *antialias) along(out []byte) {
	const shift = weightBits + keepBits
	ch := a.channels
	for i := range a.x {
		t := &a.x[i]
		line := a.row[t.first*ch:]
		if ch == 3 {
			var b, g, r int32 = 1 << (shift - 1), 1 << (shift - 1), 1 << (shift - 1)
			for j, w := range t.weights {
				p := line[3*j : 3*j+3 : 3*j+3]
				b += w * int32(p[0])
				g += w * int32(p[1])
				r += w * int32(p[2])
			}
			o := out[3*i : 3*i+3 : 3*i+3]
			o[0], o[1], o[2] = byte(b>>shift), byte(g>>shift), byte(r>>shift)
			continue
		}
		v := int32(1 << (shift - 1))
		for j, w := range t.weights {
			v += w * int32(line[j])
		}
		out[i] = byte(v >> shift)
	}
}
