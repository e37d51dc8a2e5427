package evaluate

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// z95 is the quantile of the normal distribution for two-sided 95 %.
const z95 = 1.959963984540054

// Wilson is the 95 % score interval of a proportion of k out of n.
// Source: Wilson 1927, "Probable inference, the law of succession, and
// statistical inference".
func Wilson(k, n int) (low, high float64) {
	if n == 0 {
		return 0, 1
	}
	p, m := float64(k)/float64(n), float64(n)
	center := p + z95*z95/(2*m)
	half := z95 * math.Sqrt(p*(1-p)/m+z95*z95/(4*m*m))
	scale := 1 + z95*z95/m
	return max(0, (center-half)/scale), min(1, (center+half)/scale)
}

// Latency sums up durations, in milliseconds.
type Latency struct {
	Mean float64 `json:"mean_ms"`
	P50  float64 `json:"p50_ms"` // nearest rank
	P99  float64 `json:"p99_ms"`
	Max  float64 `json:"max_ms"`
}

func latencyOf(ds []time.Duration) Latency {
	if len(ds) == 0 {
		return Latency{}
	}
	slices.Sort(ds)
	var sum time.Duration
	for _, d := range ds {
		sum += d
	}
	rank := func(percent int) float64 { // the smallest value with at least that many at or below it
		return millis(ds[max((percent*len(ds)+99)/100, 1)-1])
	}
	return Latency{Mean: millis(sum) / float64(len(ds)), P50: rank(50), P99: rank(99), Max: millis(ds[len(ds)-1])}
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Comparison of two models on the same pictures by McNemar's test: only those
// that one gets right and the other wrong count.
type Comparison struct {
	N          int     `json:"n"`          // pictures both have answered
	OnlyFirst  int     `json:"only_first"` // the first right, the second wrong
	OnlySecond int     `json:"only_second"`
	P          float64 `json:"p"` // probability of a difference at least as large if both were equally good
	Exact      bool    `json:"exact"`
}

// ErrOtherSet means that two reports are not of the same set.
var ErrOtherSet = errors.New("evaluate: the reports are of different sets")

// Compare needs two reports that Run made of the same set in this process.
func Compare(first, second *Report) (Comparison, error) {
	a, b := first.Outcomes, second.Outcomes
	if len(a) == 0 || len(a) != len(b) || first.Dataset != second.Dataset || first.DatasetDigest != second.DatasetDigest {
		return Comparison{}, fmt.Errorf("%w: %q with %d answers, %q with %d", ErrOtherSet, first.Dataset, len(a), second.Dataset, len(b))
	}
	var n, onlyA, onlyB int
	for i := range a {
		if a[i].Skipped || b[i].Skipped {
			continue
		}
		n++
		switch {
		case a[i].Correct() && !b[i].Correct():
			onlyA++
		case b[i].Correct() && !a[i].Correct():
			onlyB++
		}
	}
	c := McNemar(onlyA, onlyB)
	c.N = n
	return c, nil
}

// McNemar tests whether two classifiers err equally often, given how many
// pictures only one of them got right. Below 25 of them the two-sided binomial
// test is used, else χ² with continuity correction.
// Source: McNemar 1947; Edwards 1948.
func McNemar(onlyFirst, onlySecond int) Comparison {
	c := Comparison{OnlyFirst: onlyFirst, OnlySecond: onlySecond}
	n := onlyFirst + onlySecond
	if n >= 25 {
		d := math.Abs(float64(onlyFirst-onlySecond)) - 1
		c.P = math.Erfc(math.Sqrt(max(d, 0) * max(d, 0) / float64(n) / 2))
		return c
	}
	c.Exact = true
	term, tail := math.Pow(0.5, float64(n)), 0.0 // term is C(n, i) ÷ 2ⁿ
	for i := range min(onlyFirst, onlySecond) + 1 {
		tail += term
		term *= float64(n-i) / float64(i+1)
	}
	c.P = min(1, 2*tail)
	return c
}
