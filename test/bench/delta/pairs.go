package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/droverhq/drover/infer/modelfile"
)

// pairOf makes the i-th pair of the models in a folder.
func pairOf(models string, i int) (pair, error) {
	read := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(models, name+".tflite")) }
	const quant = "mobilenet_v2_1.0_224_quant"
	switch {
	case i < 2:
		backbone, err := read("mobilenet_v1_1.0_224_quant_embedding_extractor")
		if err != nil {
			return pair{}, err
		}
		return heads(backbone, []int{10, 100}[i])
	case i < 6:
		base, err := read(quant)
		if err != nil {
			return pair{}, err
		}
		return moved(base, []int{1, 10, 30, 60}[i-2])
	}
	base, err := read(quant)
	if err != nil {
		return pair{}, err
	}
	target, err := read("tf2_mobilenet_v2_1.0_224_ptq")
	return pair{
		Name: "unrelated: mobilenet_v2 quant → tf2 ptq", base: base, target: target,
		OfBest: 1.02, Why: "1.02 × the best of the others",
	}, err
}

// heads are two files with one backbone and different heads.
func heads(backbone []byte, classes int) (pair, error) {
	a, _, err := graft(backbone, newHead(classes, 1))
	if err != nil {
		return pair{}, err
	}
	b, fresh, err := graft(backbone, newHead(classes, 2))
	if err != nil {
		return pair{}, err
	}
	compressed, err := zstd19(fresh)
	return pair{
		Name: fmt.Sprintf("head: %d new classes on the mobilenet_v1 backbone", classes), base: a, target: b,
		Allowed: 1.05 * float64(compressed), Why: fmt.Sprintf("1.05 × %d, the new tensors by zstd -19", compressed),
	}, err
}

// moved moves every weight of one byte by one quantum with a probability.
func moved(base []byte, percent int) (pair, error) {
	m, err := modelfile.Parse(base)
	if err != nil {
		return pair{}, err
	}
	target := slices.Clone(base)
	rng := rand.New(rand.NewPCG(uint64(percent), 1))
	counts := map[byte]int{}
	total := 0
	seen := map[int]bool{}
	for _, t := range m.Tensors {
		b := m.Buffers[t.Buffer]
		if t.Type.Size() != 1 || t.Buffer == 0 || seen[t.Buffer] {
			continue
		}
		seen[t.Buffer] = true
		lowest := byte(0)
		if t.Type == modelfile.Int8 {
			lowest = 0x80
		}
		for i := range b.Data {
			at := b.Offset + i
			if rng.IntN(100) < percent {
				step := byte(1)
				if v := base[at] - lowest; v == 255 || v != 0 && rng.IntN(2) == 0 {
					step = 255
				}
				target[at] += step
			}
			counts[target[at]-base[at]]++
			total++
		}
	}
	bits := 0.0
	for _, n := range counts {
		bits -= float64(n) * math.Log2(float64(n)/float64(total))
	}
	return pair{
		Name: fmt.Sprintf("moved: %d weights of mobilenet_v2 quant, %d %% of them by one", total, percent), base: base, target: target,
		Allowed: 1.05 * bits / 8, Why: fmt.Sprintf("1.05 × %.0f, the entropy of the differences", bits/8),
	}, nil
}
