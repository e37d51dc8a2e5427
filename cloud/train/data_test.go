package train

import (
	"compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/droverhq/drover/infer"
)

// memory is samples of bytes, prepared as (pixel − mean) ÷ std.
type memory struct {
	pixels    []byte
	classes   []byte
	size      int
	mean, std float32
	err       error // of Pixels
}

func (m *memory) Len() int        { return len(m.classes) }
func (m *memory) Class(i int) int { return int(m.classes[i]) }
func (m *memory) Pixels(i int, dst []float32) error {
	for j, v := range m.pixels[i*m.size : (i+1)*m.size] {
		dst[j] = (float32(v) - m.mean) / m.std
	}
	return m.err
}

func (m *memory) part(from, to int) *memory {
	p := *m
	p.pixels, p.classes = m.pixels[from*m.size:to*m.size], m.classes[from:to]
	return &p
}

// blobs are noisy pictures of a bright patch; where it stands is the class.
func blobs(n, h, w, ch, classes int) *memory {
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	m := &memory{size: h * w * ch, std: 255, pixels: make([]byte, n*h*w*ch), classes: make([]byte, n)}
	for i := range n {
		class := i % classes
		m.classes[i] = byte(class)
		p := m.pixels[i*m.size : (i+1)*m.size]
		for y := range h {
			for x := range w {
				v := rng.IntN(90)
				if y*2/h == class/2%2 && x*2/w == class%2 && rng.IntN(4) > 0 {
					v += 120
				}
				for c := range ch {
					p[(y*w+x)*ch+c] = byte(v + rng.IntN(20))
				}
			}
		}
	}
	return m
}

var gray = infer.Preprocess{Color: infer.Gray, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Area,
	Mean: []float32{0}, Std: []float32{255}}

// tiny is a job that takes a fraction of a second.
func tiny(network string) Job {
	return Job{
		Spec: Spec{Network: network, Classes: 4, Height: 12, Width: 10, Channels: 1, Filters: []int{4}, Kernel: 3, Hidden: []int{12},
			Epochs: 4, Batch: 16, Optimizer: OptimizerAdam, LearningRate: 0.01, Schedule: ScheduleCosine, Calibration: 64, Seed: 5},
		Train: blobs(400, 12, 10, 1, 4), Labels: []string{"a", "b", "c", "d"}, Preprocess: gray, DatasetDigest: "d1",
	}
}

// fashion reads Debian's package dataset-fashion-mnist.
func fashion(t testing.TB, part string) *memory {
	t.Helper()
	read := func(name string, head int) []byte {
		f, err := os.Open(filepath.Join("/usr/share/datasets/fashion-mnist", name))
		if errors.Is(err, os.ErrNotExist) {
			t.Skip("package dataset-fashion-mnist is not installed")
		}
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(z)
		if err != nil || len(b) < head {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		return b[head:]
	}
	return &memory{size: 28 * 28, std: 255, pixels: read(part+"-images-idx3-ubyte.gz", 16), classes: read(part+"-labels-idx1-ubyte.gz", 8)}
}
