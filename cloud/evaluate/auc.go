package evaluate

import (
	"math"
)

// auc counts what is needed for the area under the ROC curve of each class
// against the rest, without keeping the scores: a histogram of the scores of the
// class's own pictures and one of all others. The area is the probability that
// an own picture scores higher than another, equal scores counting half
// (Mann-Whitney U ÷ products of the counts).
//
// Bins follow the bits of the float32: each octave from 2⁻²⁴ to 1 has 2^mantissa
// bins; smaller scores share one. With mantissa 8 no two different values of an
// 8-bit output fall into one bin (neighbours k·s and (k+1)·s, k ≤ 255, differ by
// at least 1/255 of the octave's start), so for quantized models without a
// softmax of ours the area is exact. Float scores that differ by less than
// 1/256 count as equal. Beyond some 1,300 classes bins become coarser.
type auc struct {
	mantissa int
	bins     int
	own      [][]uint32 // by class; nil where the set has no picture of it
	rest     [][]uint32
}

const (
	octaves    = 24
	maxAUCBins = 1 << 24 // counters in all: 64 MiB
)

// newAUC counts for the classes that occur.
func newAUC(support []int) *auc {
	a := &auc{mantissa: 8, own: make([][]uint32, len(support)), rest: make([][]uint32, len(support))}
	n := 0
	for _, s := range support {
		if s > 0 {
			n++
		}
	}
	for a.bins = octaves<<a.mantissa + 2; 2*n*a.bins > maxAUCBins && a.mantissa > 0; a.bins = octaves<<a.mantissa + 2 {
		a.mantissa--
	}
	for c, s := range support {
		if s > 0 {
			a.own[c], a.rest[c] = make([]uint32, a.bins), make([]uint32, a.bins)
		}
	}
	return a
}

// bin grows with p.
func (a *auc) bin(p float32) int {
	const lowest = (127 - octaves) << 23 // the bits of 2⁻²⁴
	bits := int64(math.Float32bits(p))
	switch {
	case p <= 0 || bits < lowest:
		return 0
	case p >= 1:
		return a.bins - 1
	}
	return 1 + int((bits-lowest)>>(23-a.mantissa))
}

func (a *auc) add(actual int, scores []float32) {
	for c, p := range scores {
		switch {
		case a.own[c] == nil:
		case c == actual:
			a.own[c][a.bin(p)]++
		default:
			a.rest[c][a.bin(p)]++
		}
	}
}

// area of a class, or false if it has no pictures or there are no others.
func (a *auc) area(c int) (float64, bool) {
	if a.own[c] == nil {
		return 0, false
	}
	var pairs float64 // own above rest, equal counting half
	var own, rest uint64
	for i := range a.bins {
		o, r := uint64(a.own[c][i]), uint64(a.rest[c][i])
		pairs += float64(o) * (float64(rest) + float64(r)/2)
		own, rest = own+o, rest+r
	}
	if own == 0 || rest == 0 {
		return 0, false
	}
	return pairs / (float64(own) * float64(rest)), true
}
