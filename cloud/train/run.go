package train

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/droverhq/drover/infer"
)

// Job is one training.
type Job struct {
	Spec          Spec
	Train         Samples
	Labels        []string         // index = class
	Preprocess    infer.Preprocess // how the pictures were prepared; recorded in the model
	DatasetDigest string           // likewise
	Progress      func(Progress)   // called after each batch from Run's goroutine; may be nil
}

// Progress tells how far a training is.
type Progress struct {
	Epoch, Epochs   int     // Epoch counts from 1
	Batch, Batches  int     // of the epoch; Batch counts from 1
	Loss            float64 // mean over the epoch so far
	Accuracy        float64 // likewise, on the training pictures as they were seen
	PicturesPerSec  float64 // over the whole run so far
	PicturesSeen    int
	PicturesPlanned int
}

// Run trains, quantizes and writes a model. It returns when all its goroutines
// have; a cancelled ctx stops it within one batch.
func Run(ctx context.Context, job Job) (*Artifact, error) {
	if err := job.check(); err != nil {
		return nil, err
	}
	net, err := NewNetwork(job.Spec)
	if err != nil {
		return nil, err
	}
	last, err := job.fit(ctx, net)
	if err != nil {
		return nil, err
	}
	return job.export(ctx, net, last)
}

func (j *Job) check() error {
	if err := j.Spec.Validate(); err != nil {
		return err
	}
	// A recipe that cannot be recorded is found before the training, not after.
	s, q := j.Spec, infer.Quant{Scales: []float32{1}, ZeroPoints: []int32{0}}
	will := infer.Spec{Labels: j.Labels, Preprocess: j.Preprocess, Postprocess: infer.DefaultPostprocess(), Contract: infer.Contract{
		Input:  infer.TensorSpec{Shape: []int{1, s.Height, s.Width, s.Channels}, DType: infer.Int8, Quant: q},
		Output: infer.TensorSpec{Shape: []int{1, s.Classes}, DType: infer.Int8, Quant: q}}}
	if err := will.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrSpec, err)
	}
	return checkSamples(j.Train, j.Spec.Classes)
}

func (j *Job) fit(ctx context.Context, net *Network) (Progress, error) {
	s := j.Spec
	perEpoch := j.Train.Len()
	if s.PerEpoch > 0 {
		perEpoch = min(perEpoch, s.PerEpoch)
	}
	batches := (perEpoch + s.Batch - 1) / s.Batch
	params := net.Params()
	opt := s.optimizer(params)
	grads := make([][]float32, len(params))
	for i, p := range params {
		grads[i] = make([]float32, len(p.Value))
	}
	e := newEngine(net, j.Train, s.Batch)
	p := Progress{Epochs: s.Epochs, Batches: batches, PicturesPlanned: perEpoch * s.Epochs}
	start := time.Now()
	for epoch := range s.Epochs {
		pictures := order(s.Seed, epoch, j.Train.Len())[:perEpoch]
		vary := func(x, scratch []float32, picture int) {
			s.Augment.apply(x, scratch, net.In, s.Seed, epoch, picture)
		}
		p.Epoch = epoch + 1
		var lossSum float64
		var hits, seen int
		for b := range batches {
			batch := pictures[b*s.Batch : min((b+1)*s.Batch, perEpoch)]
			for _, g := range grads {
				clear(g)
			}
			loss, h, err := e.gradients(ctx, batch, vary, grads)
			if err != nil {
				return p, fmt.Errorf("train: epoch %d, batch %d: %w", epoch+1, b+1, err)
			}
			if math.IsNaN(loss) || math.IsInf(loss, 0) {
				return p, fmt.Errorf("%w: loss is %v in epoch %d, batch %d; a learning rate below %g may help",
					ErrDiverged, loss, epoch+1, b+1, s.LearningRate)
			}
			opt.step(grads, s.rate(epoch*batches+b, s.Epochs*batches))
			lossSum, hits, seen = lossSum+loss*float64(len(batch)), hits+h, seen+len(batch)
			p.Batch, p.Loss, p.Accuracy = b+1, lossSum/float64(seen), float64(hits)/float64(seen)
			p.PicturesSeen += len(batch)
			p.PicturesPerSec = float64(p.PicturesSeen) / time.Since(start).Seconds()
			if j.Progress != nil {
				j.Progress(p)
			}
		}
	}
	return p, nil
}

func dataError(picture int, err error) error {
	return fmt.Errorf("%w: picture %d: %w", ErrData, picture, err)
}

// Accuracy is the fraction of samples whose largest logit, in float, stands at
// their class.
func (n *Network) Accuracy(ctx context.Context, samples Samples) (float64, error) {
	if err := checkSamples(samples, n.Out().Size()); err != nil {
		return 0, err
	}
	const batch = 256
	e := newEngine(n, samples, batch)
	pictures := make([]int, samples.Len())
	for i := range pictures {
		pictures[i] = i
	}
	hits := 0
	for at := 0; at < len(pictures); at += batch {
		part := pictures[at:min(at+batch, len(pictures))]
		err := e.each(ctx, part, func(s *shard, part []int) error {
			if err := e.load(s, part, nil); err != nil {
				return err
			}
			logits := s.pass.forward(s.x, len(part), nil)
			_, s.hits = softmaxCrossEntropy(logits, s.classes[:len(part)], 1)
			return nil
		})
		if err != nil {
			return 0, fmt.Errorf("train: accuracy: %w", err)
		}
		for i := range e.shards {
			hits += e.shards[i].hits
		}
	}
	return float64(hits) / float64(len(pictures)), nil
}
