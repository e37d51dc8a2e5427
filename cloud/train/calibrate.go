package train

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/droverhq/drover/infer"
)

// valueRange is the range of values seen at one place of the network.
type valueRange struct{ lo, hi float32 }

func (r *valueRange) include(v []float32) {
	for _, x := range v {
		r.lo, r.hi = min(r.lo, x), max(r.hi, x)
	}
}

// calibration is the ranges of all layers' outputs over some pictures.
type calibration struct {
	ranges []valueRange // parallel to Network.Layers
	digest string       // of the pictures used
	count  int
}

// calibrate runs a drawn subset of the training pictures through the network.
func (n *Network) calibrate(ctx context.Context, samples Samples, count int, seed uint64) (*calibration, error) {
	count = min(count, samples.Len())
	pictures := rand.New(rand.NewPCG(seed, streamCalibrate)).Perm(samples.Len())[:count]
	e := newEngine(n, samples, shards)
	var parts [shards][]valueRange
	for i := range parts {
		parts[i] = make([]valueRange, len(n.Layers))
	}
	digest := sha256.New()
	for at := 0; at < count; at += shards {
		err := e.each(ctx, pictures[at:min(at+shards, count)], func(s *shard, part []int) error {
			if err := e.load(s, part, nil); err != nil {
				return err
			}
			ranges := parts[e.index(s)]
			s.pass.forward(s.x, len(part), func(layer int, y []float32) { ranges[layer].include(y) })
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("train: calibrate: %w", err)
		}
		for _, p := range pictures[at:min(at+shards, count)] {
			if err := binary.Write(digest, binary.LittleEndian, uint64(p)); err != nil {
				return nil, err
			}
		}
	}
	c := &calibration{ranges: make([]valueRange, len(n.Layers)), count: count, digest: hex.EncodeToString(digest.Sum(nil))}
	for i := range c.ranges {
		for _, p := range parts {
			c.ranges[i].include([]float32{p[i].lo, p[i].hi})
		}
		if r := c.ranges[i]; math.IsInf(float64(r.lo), 0) || math.IsInf(float64(r.hi), 0) || r.lo != r.lo || r.hi != r.hi {
			return nil, fmt.Errorf("%w: values of layer %d are not finite", ErrDiverged, i)
		}
	}
	return c, nil
}

func (e *engine) index(s *shard) int {
	for i := range e.shards {
		if &e.shards[i] == s {
			return i
		}
	}
	panic("internal error: shard of another engine")
}

// quantize returns int8 parameters for the range, with 0 exactly at a step, as
// padding and ReLU need it. real = scale × (q − zero point).
func (r valueRange) quantize() infer.Quant {
	lo, hi := min(r.lo, 0), max(r.hi, 0)
	scale := (hi - lo) / 255
	if scale < 1e-8 {
		scale = 1e-8 // a constant zero
	}
	zero := math.Round(-128 - float64(lo)/float64(scale))
	return infer.Quant{Scales: []float32{scale}, ZeroPoints: []int32{int32(max(-128, min(127, zero)))}}
}

// inputRange is what pixels from 0 to 255 become.
func inputRange(p infer.Preprocess) valueRange {
	r := valueRange{float32(math.Inf(1)), float32(math.Inf(-1))}
	for i := range max(len(p.Mean), len(p.Std)) {
		mean, std := p.Mean[i%len(p.Mean)], p.Std[i%len(p.Std)]
		r.include([]float32{-mean / std, (255 - mean) / std})
	}
	return r
}
