package main

import (
	"bytes"
	"encoding/csv"
	"image"
	_ "image/jpeg"
	_ "image/png"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/infer/modelfile"
)

// picture is a labelled picture of a sample set.
type picture struct {
	frame camera.Frame
	class int
}

// pictures reads a sample set by its labels.csv.
func pictures(t *testing.T, set, column string, labels []string) []picture {
	t.Helper()
	rows, err := csv.NewReader(bytes.NewReader(sample(t, path.Join("images", set, "labels.csv")))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	file, label := slices.Index(rows[0], "file"), slices.Index(rows[0], column)
	var out []picture
	for _, row := range rows[1:] {
		class, err := strconv.Atoi(row[label])
		if err != nil {
			class = slices.Index(labels, row[label])
		}
		img, _, err := image.Decode(bytes.NewReader(sample(t, path.Join("images", set, row[file]))))
		if err != nil || class < 0 {
			t.Fatalf("%v: %v", row, err)
		}
		out = append(out, picture{frameOf(img), class})
	}
	return out
}

func frameOf(img image.Image) camera.Frame {
	b := img.Bounds()
	f := camera.Frame{Width: b.Dx(), Height: b.Dy(), Stride: 3 * b.Dx(), Format: camera.BGR8}
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			r, g, bl, _ := img.At(x, y).RGBA()
			f.Data = append(f.Data, byte(bl>>8), byte(g>>8), byte(r>>8))
		}
	}
	return f
}

// run sends a frame and waits for the output.
func (p *parent) run(what protocol.RunWhat, f *camera.Frame) protocol.Result {
	p.t.Helper()
	copy(p.scratch, f.Data)
	p.send(protocol.KindRun, protocol.Run{ID: 1, What: what, Width: f.Width, Height: f.Height, Stride: f.Stride, Format: uint32(f.Format), Bytes: len(f.Data)})
	r := p.result()
	if r.Status != protocol.OK {
		p.t.Fatalf("status %d: %s", r.Status, r.Data)
	}
	return r
}

func TestAccuracyOnSamples(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	imagenet := infer.Preprocess{Color: infer.RGB, Fit: infer.Crop, CropFraction: 0.875, Interpolation: infer.Antialias, Mean: []float32{127.5}, Std: []float32{127.5}}
	cifar := infer.Preprocess{Color: infer.RGB, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear, Mean: []float32{0}, Std: []float32{1}}
	imagenetLabels := strings.Split(strings.TrimSpace(string(sample(t, "models/imagenet_labels_1001.txt"))), "\n")
	cifarLabels := strings.Split(strings.TrimSpace(string(sample(t, "models/cifar10_labels.txt"))), "\n")
	large := pictures(t, "imagenet-sample", "index1001", nil)
	small := pictures(t, "cifar10-test", "label", cifarLabels)
	for _, tc := range []struct {
		model  string
		set    []picture
		labels []string
		pre    infer.Preprocess
		top1   float64
	}{
		{"mobilenet_v1_0.25_128_quant", large, imagenetLabels, imagenet, 0.448},
		{"mobilenet_v1_0.75_192_quant", large, imagenetLabels, imagenet, 0.812},
		{"mobilenet_v2_1.0_224_quant", large, imagenetLabels, imagenet, 0.896},
		{"tf2_mobilenet_v2_1.0_224_ptq", large, imagenetLabels, imagenet, 0.88},
		{"pretrainedResnet_quant", small, cifarLabels, cifar, 0.747},
		{"pretrainedResnet", small, cifarLabels, cifar, 0.751},
		{"pretrainedResnet_large_int8", small, cifarLabels, cifar, 0.795},
	} {
		t.Run(tc.model, func(t *testing.T) {
			model := sample(t, "models/"+tc.model+".tflite")
			spec := &infer.Spec{Contract: contractOf(t, model), Labels: tc.labels, Preprocess: tc.pre, Postprocess: infer.DefaultPostprocess()}
			p := start(t)
			loaded, refused := p.load(model, spec, protocol.Runtime{}, 4<<20)
			if refused != nil {
				t.Fatal(refused)
			}
			scores := make([]float32, spec.Contract.Classes())
			top := make([]infer.Score, 0, 5)
			hits, hits5 := 0, 0
			for i := range tc.set {
				pic := &tc.set[i]
				s, err := spec.Scores(p.run(protocol.RunFrame, &pic.frame).Data, scores)
				if err != nil {
					t.Fatal(err)
				}
				top = spec.TopK(s, top)
				if top[0].Class == pic.class {
					hits++
				}
				if slices.ContainsFunc(top, func(s infer.Score) bool { return s.Class == pic.class }) {
					hits5++
				}
			}
			got := float64(hits) / float64(len(tc.set))
			t.Logf("%s: top-1 %.4f, top-5 %.4f of %d", loaded.Delegate, got, float64(hits5)/float64(len(tc.set)), len(tc.set))
			if got < tc.top1-0.02 || got > tc.top1+0.02 {
				t.Errorf("top-1 %.4f, measured elsewhere %.4f", got, tc.top1)
			}
		})
	}
}

// contractOf reads off the file what a model takes and gives.
func contractOf(t *testing.T, model []byte) infer.Contract {
	t.Helper()
	m, err := modelfile.Parse(model)
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.Contract()
	if err != nil {
		t.Fatal(err)
	}
	return c
}
