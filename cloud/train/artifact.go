package train

import (
	"context"
	"fmt"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
)

// Artifact is a trained model and where it came from.
type Artifact struct {
	TFLite  []byte
	Spec    infer.Spec
	Float   *Network // before quantization
	Lineage Lineage
}

// Lineage is what it takes to make the same model again.
type Lineage struct {
	Train              Spec    `json:"train"`
	DatasetDigest      string  `json:"dataset_digest"`
	Pictures           int     `json:"pictures"`
	Parameters         int     `json:"parameters"`
	CalibrationDigest  string  `json:"calibration_digest"` // SHA-256 over the numbers of the pictures used, 8 bytes each, little endian
	CalibrationSamples int     `json:"calibration_samples"`
	TrainLoss          float64 `json:"train_loss"` // mean over the last epoch
	TrainAccuracy      float64 `json:"train_accuracy"`
	PicturesPerSec     float64 `json:"pictures_per_sec"` // how fast it went; the only value that is not reproducible
}

// export quantizes the network and writes it.
func (j *Job) export(ctx context.Context, net *Network, last Progress) (*Artifact, error) {
	c, err := net.calibrate(ctx, j.Train, j.Spec.Calibration, j.Spec.Seed)
	if err != nil {
		return nil, err
	}
	b := modelfile.NewBuilder("drover " + j.Spec.Network)
	g := &lowering{b: b, shape: net.In, quant: inputRange(j.Preprocess).quantize()}
	g.at = b.Tensor(modelfile.TensorDef{Name: "image", Shape: []int{1, net.In.Height, net.In.Width, net.In.Channels},
		Type: modelfile.Int8, Quant: g.quant})
	input := g.at
	if err := net.lower(g, c); err != nil {
		return nil, err
	}
	// The kernel of the int8 softmax demands exactly these parameters.
	logits, output := g.output("probability", net.Out(), infer.Quant{Scales: []float32{1.0 / 256}, ZeroPoints: []int32{-128}})
	b.Operator(modelfile.Softmax, modelfile.SoftmaxOptions{Beta: 1}, []int{logits}, []int{output})
	b.IO([]int{input}, []int{output})
	b.Metadata(modelfile.Metadata{Name: j.Spec.Network, Description: "dataset " + j.DatasetDigest,
		Mean: j.Preprocess.Mean, Std: j.Preprocess.Std, Gray: j.Preprocess.Color == infer.Gray, Labels: j.Labels})
	return j.artifact(b, net, c, last)
}

func (j *Job) artifact(b *modelfile.Builder, net *Network, c *calibration, last Progress) (*Artifact, error) {
	file, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExport, err)
	}
	m, err := modelfile.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExport, err)
	}
	contract, err := m.Contract()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExport, err)
	}
	spec := infer.Spec{Contract: contract, Labels: j.Labels, Preprocess: j.Preprocess, Postprocess: infer.DefaultPostprocess()}
	spec.Postprocess.TopK = min(spec.Postprocess.TopK, j.Spec.Classes)
	if err := spec.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrExport, err)
	}
	return &Artifact{TFLite: file, Spec: spec, Float: net, Lineage: Lineage{
		Train: j.Spec, DatasetDigest: j.DatasetDigest, Pictures: j.Train.Len(), Parameters: net.Size(),
		CalibrationDigest: c.digest, CalibrationSamples: c.count,
		TrainLoss: last.Loss, TrainAccuracy: last.Accuracy, PicturesPerSec: last.PicturesPerSec,
	}}, nil
}
