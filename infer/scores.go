package infer

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Score is one class with its probability.
type Score struct {
	Class int     `json:"class"`
	Label string  `json:"label"`
	P     float32 `json:"p"`
}

// Scores dequantizes the raw bytes of the output tensor into dst and applies
// the activation. dst must hold Contract.Classes() values and is returned; it
// allocates nothing. Non-finite outputs become 0, so that a broken model
// yields low confidence instead of poisoning statistics.
func (s *Spec) Scores(raw []byte, dst []float32) ([]float32, error) {
	out := s.Contract.Output
	n := out.Elements()
	if len(raw) != n*out.DType.Size() || len(dst) < n {
		return nil, fmt.Errorf("%w: %d output bytes for %d × %s", ErrContract, len(raw), n, out.DType)
	}
	dst = dst[:n]
	switch out.DType {
	case Float32:
		for i := range dst {
			dst[i] = finite(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
		}
	default:
		stride := 1 // elements that share one channel's parameters
		if len(out.Quant.Scales) > 1 {
			for _, d := range out.Shape[out.Quant.Axis+1:] {
				stride *= d
			}
		}
		signed := out.DType == Int8
		for i := range dst {
			q := int32(raw[i])
			if signed {
				q = int32(int8(raw[i]))
			}
			c := 0
			if len(out.Quant.Scales) > 1 {
				c = i / stride % len(out.Quant.Scales)
			}
			dst[i] = finite(out.Quant.Scales[c] * (float32(q) - float32(out.Quant.ZeroPoints[c])))
		}
	}
	if s.Postprocess.Activation == Softmax {
		softmax(dst, s.Postprocess.Temperature)
	}
	return dst, nil
}

func finite(v float32) float32 {
	if v != v || v > math.MaxFloat32 || v < -math.MaxFloat32 {
		return 0
	}
	return v
}

func softmax(v []float32, temperature float64) {
	top := v[0]
	for _, x := range v {
		top = max(top, x)
	}
	var sum float64
	for i, x := range v {
		e := math.Exp((float64(x) - float64(top)) / temperature)
		v[i] = float32(e)
		sum += e
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / sum)
	}
}

// TopK writes the k best classes of scores into dst, best first, ties to the
// lower class, and returns it; k = min(cap(dst), len(scores)). It allocates
// nothing.
func (s *Spec) TopK(scores []float32, dst []Score) []Score {
	k := min(cap(dst), len(scores))
	dst = dst[:0]
	for c, p := range scores {
		if len(dst) == k && (k == 0 || p <= dst[k-1].P) {
			continue
		}
		at := len(dst)
		if at < k {
			dst = append(dst, Score{})
		} else {
			at--
		}
		for at > 0 && dst[at-1].P < p {
			dst[at] = dst[at-1]
			at--
		}
		dst[at] = Score{Class: c, P: p}
		if c < len(s.Labels) {
			dst[at].Label = s.Labels[c]
		}
	}
	return dst
}
