package host

import (
	"context"
	"testing"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer/host/protocol"
)

// BenchmarkRoundTrip measures what a Classify costs beyond preprocessing and
// inference.
func BenchmarkRoundTrip(b *testing.B) {
	o := realOptions(b)
	model := readModel(b, "mobilenet_v1_0.25_128_quant.tflite")
	spec := specFor(b, o, model)
	c := startReal(b, o)
	if _, err := c.Load(b.Context(), model, spec, protocol.Runtime{}); err != nil {
		b.Fatal(err)
	}
	for name, f := range map[string]*camera.Frame{
		"28x28gray":   picture(28, 28, camera.Gray8),
		"224x224bgr":  picture(224, 224, camera.BGR8),
		"1280x720bgr": picture(1280, 720, camera.BGR8),
	} {
		b.Run(name, func(b *testing.B) {
			var out []byte
			var own time.Duration
			for b.Loop() {
				a, err := c.Classify(context.Background(), f, out)
				if err != nil {
					b.Fatal(err)
				}
				out = a.Output
				own += a.Prep + a.Invoke
			}
			b.ReportMetric(float64((b.Elapsed()-own).Microseconds())/float64(b.N), "overhead-µs/op")
		})
	}
}

// BenchmarkStart measures the way from nothing to Sealed and to a model that
// has run once.
func BenchmarkStart(b *testing.B) {
	real := realOptions(b)
	b.Run("cage alone", func(b *testing.B) {
		o := hostile(b, "serve")
		for b.Loop() {
			c, err := Start(b.Context(), o)
			if err != nil {
				b.Fatal(err)
			}
			if err := c.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, name := range []string{"mobilenet_v1_0.25_128_quant.tflite", "tf2_mobilenet_v2_1.0_224_ptq.tflite"} {
		b.Run(name, func(b *testing.B) {
			model := readModel(b, name)
			spec := specFor(b, real, model)
			var sealed, loaded time.Duration
			for b.Loop() {
				start := time.Now()
				c, err := Start(b.Context(), real)
				if err != nil {
					b.Fatal(err)
				}
				sealed += time.Since(start)
				if _, err := c.Load(b.Context(), model, spec, protocol.Runtime{}); err != nil {
					b.Fatal(err)
				}
				loaded += time.Since(start)
				if err := c.Close(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(sealed.Microseconds())/1000/float64(b.N), "sealed-ms")
			b.ReportMetric(float64(loaded.Microseconds())/1000/float64(b.N), "loaded-ms")
		})
	}
}
