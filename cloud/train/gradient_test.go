package train

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func noise(rng *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(rng.NormFloat64())
	}
	return v
}

// weighted is a scalar of a layer's output: its gradient by the output is w.
func weighted(l Layer, x, w []float32, n int) float64 {
	in := append([]float32(nil), x...) // a pass may overwrite its input
	var s float64
	for i, y := range l.NewPass(n, false).Forward(in, n) {
		s += float64(y) * float64(w[i])
	}
	return s
}

// numeric is the central difference of f by *v.
func numeric(v *float32, f func() float64) float64 {
	const h = 1.0 / 128
	old := *v
	*v = old + h
	up := f()
	*v = old - h
	down := f()
	*v = old
	return (up - down) / (2 * h)
}

func near(t *testing.T, what string, got float32, want float64) {
	t.Helper()
	if math.Abs(float64(got)-want) > 2e-3*(1+math.Abs(want)) {
		t.Errorf("%s: %v, numerically %v", what, got, want)
	}
}

func TestLayersGradients(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for _, c := range []struct {
		name string
		in   Shape
		l    Layer
	}{
		{"conv 3×3 valid", Shape{6, 5, 2}, must(NewConv2D(Shape{6, 5, 2}, 3, 3, 1, false, rng))},
		{"conv 5×5 same", Shape{6, 7, 1}, must(NewConv2D(Shape{6, 7, 1}, 2, 5, 1, true, rng))},
		{"conv 3×3 same stride 2", Shape{6, 7, 2}, must(NewConv2D(Shape{6, 7, 2}, 3, 3, 2, true, rng))},
		{"conv 2×2 valid stride 3", Shape{8, 7, 2}, must(NewConv2D(Shape{8, 7, 2}, 2, 2, 3, false, rng))},
		{"conv 1×1", Shape{3, 4, 3}, must(NewConv2D(Shape{3, 4, 3}, 4, 1, 1, false, rng))},
		{"conv wider than a tile", Shape{15, 16, 1}, must(NewConv2D(Shape{15, 16, 1}, 70, 3, 1, true, rng))},
		{"dense", Shape{1, 1, 9}, must(NewDense(Shape{1, 1, 9}, 4, rng))},
		{"relu", Shape{3, 4, 2}, NewReLU(Shape{3, 4, 2})},
		{"pool 2", Shape{5, 6, 2}, must(NewMaxPool2D(Shape{5, 6, 2}, 2))},
		{"pool 3", Shape{7, 6, 2}, must(NewMaxPool2D(Shape{7, 6, 2}, 3))},
		{"flatten", Shape{3, 4, 2}, NewFlatten(Shape{3, 4, 2})},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 3
			x, w := noise(rng, n*c.in.Size()), noise(rng, n*c.l.Out().Size())
			for i := range x { // no value so near 0 or another that a step changes the winner
				x[i] += float32(i%17) / 4
				if math.Abs(float64(x[i])) < 0.02 {
					x[i] = 0.5
				}
			}
			f := func() float64 { return weighted(c.l, x, w, n) }
			p := c.l.NewPass(n, false)
			p.Forward(append([]float32(nil), x...), n)
			dx := p.Backward(append([]float32(nil), w...), n)
			for i := 0; i < len(x); i += 1 + len(x)/64 {
				near(t, fmt.Sprintf("input %d", i), dx[i], numeric(&x[i], f))
			}
			for k, param := range c.l.Params() {
				g := p.Grads()[k]
				for i := 0; i < len(g); i += 1 + len(g)/64 {
					near(t, fmt.Sprintf("%s %d", param.Name, i), g[i], numeric(&param.Value[i], f))
				}
			}
			leaf := c.l.NewPass(n, true)
			leaf.Forward(append([]float32(nil), x...), n)
			leaf.Backward(append([]float32(nil), w...), n)
			for k, g := range leaf.Grads() {
				for i := range g {
					if g[i] != p.Grads()[k][i] {
						t.Fatalf("a leaf pass gives another gradient: %v, %v", g[i], p.Grads()[k][i])
					}
				}
			}
		})
	}
}

// The convolution against its definition.
func TestConv2DIsAConvolution(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	for _, same := range []bool{false, true} {
		in := Shape{7, 6, 2}
		l := must(NewConv2D(in, 3, 3, 2, same, rng))
		copy(l.bias.Value, noise(rng, 3))
		x := noise(rng, in.Size())
		y := l.NewPass(1, true).Forward(x, 1)
		// SAME, stride 2: 7 rows need one row of padding on each side, 6 columns
		// one at the right only.
		padY, padX := 0, 0
		if same {
			padY = 1
		}
		for o := range 3 {
			for oy := range l.out.Height {
				for ox := range l.out.Width {
					want := float64(l.bias.Value[o])
					for c := range 2 {
						for ky := range 3 {
							for kx := range 3 {
								iy, ix := oy*2+ky-padY, ox*2+kx-padX
								if iy < 0 || iy >= 7 || ix < 0 || ix >= 6 {
									continue
								}
								want += float64(x[(c*7+iy)*6+ix]) * float64(l.weight.Value[((o*2+c)*3+ky)*3+kx])
							}
						}
					}
					got := y[(o*l.out.Height+oy)*l.out.Width+ox]
					if math.Abs(float64(got)-want) > 1e-4 {
						t.Fatalf("same %v, output %d,%d,%d is %v, wanted %v", same, o, oy, ox, got, want)
					}
				}
			}
		}
	}
}

func TestMaxPool2DPicksTheLargest(t *testing.T) {
	l := must(NewMaxPool2D(Shape{2, 8, 1}, 2))
	x := []float32{
		-4, -3, 0, 0, 1, 5, -1e-30, -1e30,
		-2, -1, 0, 0, 2, 3, -3e38, -2,
	}
	got := l.NewPass(1, true).Forward(x, 1)
	for i, want := range []float32{-1, 0, 5, -1e-30} {
		if got[i] != want {
			t.Errorf("window %d: %v, wanted %v", i, got[i], want)
		}
	}
}

func TestSoftmaxCrossEntropy(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	logits, classes := noise(rng, 15), []int{4, 0, 2}
	logits[14] = 80 // far from overflow, far from the others
	f := func() float64 {
		loss, _ := softmaxCrossEntropy(append([]float32(nil), logits...), classes, 3)
		return loss / 3
	}
	grad := append([]float32(nil), logits...)
	loss, hits := softmaxCrossEntropy(grad, classes, 3)
	if loss <= 0 || hits < 0 || hits > 3 {
		t.Errorf("loss %v, %d hits", loss, hits)
	}
	for i := range logits {
		near(t, fmt.Sprintf("logit %d", i), grad[i], numeric(&logits[i], f))
	}
	sure := []float32{0, 30, 0}
	if loss, hits := softmaxCrossEntropy(sure, []int{1}, 1); loss > 1e-6 || hits != 1 {
		t.Errorf("a sure and right answer has loss %v, %d hits", loss, hits)
	}
}

func TestNetworkGradient(t *testing.T) {
	s := Spec{Network: NetworkLeNet, Classes: 3, Height: 9, Width: 8, Channels: 3, Filters: []int{4}, Kernel: 3, Hidden: []int{6},
		Epochs: 1, Batch: 5, Optimizer: OptimizerSGD, LearningRate: 1, Schedule: ScheduleConstant, Calibration: 1, Seed: 3}
	net := must(NewNetwork(s))
	data := blobs(5, 9, 8, 3, 3)
	pictures := []int{0, 1, 2, 3, 4}
	params := net.Params()
	gradients := func() (float64, [][]float32) {
		grads := make([][]float32, len(params))
		for i, p := range params {
			grads[i] = make([]float32, len(p.Value))
		}
		loss, _, err := newEngine(net, data, 5).gradients(t.Context(), pictures, nil, grads)
		if err != nil {
			t.Fatal(err)
		}
		return loss, grads
	}
	_, grads := gradients()
	for k, p := range params {
		for i := 0; i < len(p.Value); i += 1 + len(p.Value)/16 {
			// A ReLU or a pool may switch within the step: a small one.
			old := p.Value[i]
			const h = 1.0 / 4096
			p.Value[i] = old + h
			up, _ := gradients()
			p.Value[i] = old - h
			down, _ := gradients()
			p.Value[i] = old
			want := (up - down) / (2 * h)
			if math.Abs(float64(grads[k][i])-want) > 0.03*(0.1+math.Abs(want)) {
				t.Errorf("%s %d of parameter %d: %v, numerically %v", p.Name, i, k, grads[k][i], want)
			}
		}
	}
}
