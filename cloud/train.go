package cloud

import (
	"context"
	"errors"
	"fmt"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/cloud/evaluate"
	"github.com/droverhq/drover/cloud/train"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
)

// TrainOptions describe a training on labelled pictures.
type TrainOptions struct {
	Set *dataset.Set
	// Test is what the model will be judged by; may be nil. It is not trained
	// on: pictures of Set that stand in Test too are left out. That its classes
	// are those of Set is found out before the training, not after.
	Test *dataset.Set
	// Labels name the classes of a Set that is Indexed; nil means the Set's own.
	Labels []string
	// Spec says which network and how. Height, Width and Channels 0 are taken
	// from the first picture, Classes 0 from the labels.
	Spec train.Spec
	// Preprocess is the recipe, recorded in the model; with no Color,
	// TrainingRecipe's.
	Preprocess infer.Preprocess
	Host       host.Options
	OnPrepare  func(done, total int) // may be nil
	OnTrain    func(train.Progress)  // may be nil
}

// Train prepares the pictures by the device's own code, trains, quantizes, and
// gives a model whose lineage names the pictures it was really trained on.
// Whether it is any good is EvaluateModel's to say.
func Train(ctx context.Context, o TrainOptions) (*train.Artifact, error) {
	labels := o.Labels
	if labels == nil {
		labels = o.Set.Classes
	}
	set, err := withoutTest(ctx, o.Set, o.Test, labels)
	if err != nil {
		return nil, err
	}
	if err := o.complete(ctx, set, labels); err != nil {
		return nil, err
	}
	if _, err := train.NewNetwork(o.Spec); err != nil { // what cannot be built is found before the pictures are prepared
		return nil, err
	}
	digest, err := set.Digest(ctx)
	if err != nil {
		return nil, err
	}
	pictures, err := Prepare(ctx, o.Host, set, o.Spec.Height, o.Spec.Width, o.Preprocess, o.OnPrepare)
	if err != nil {
		return nil, err
	}
	return train.Run(ctx, train.Job{
		Spec: o.Spec, Train: pictures, Labels: labels, Preprocess: o.Preprocess, DatasetDigest: digest, Progress: o.OnTrain,
	})
}

// maxTrainSide bounds the input that is chosen for a set of large pictures: the
// presets are small networks.
const maxTrainSide = 64

// complete fills in what follows from the pictures.
func (o *TrainOptions) complete(ctx context.Context, set *dataset.Set, labels []string) error {
	if o.Spec.Classes == 0 {
		o.Spec.Classes = len(labels)
	}
	first, err := set.Sample(0).Load(ctx)
	if err != nil {
		return err
	}
	if o.Preprocess.Color == "" {
		gray := first.Format == camera.Gray8
		if o.Spec.Channels != 0 {
			gray = o.Spec.Channels == 1
		}
		o.Preprocess = TrainingRecipe(gray)
	}
	if o.Spec.Channels == 0 {
		o.Spec.Channels = 3
		if o.Preprocess.Color == infer.Gray {
			o.Spec.Channels = 1
		}
	}
	if o.Spec.Height == 0 {
		o.Spec.Height = min(first.Height, maxTrainSide)
	}
	if o.Spec.Width == 0 {
		o.Spec.Width = min(first.Width, maxTrainSide)
	}
	return nil
}

// TrainingRecipe is how pictures are brought to a network that is trained from
// scratch: whole, scaled to [0, 1].
func TrainingRecipe(gray bool) infer.Preprocess {
	p := infer.Preprocess{
		Color: infer.RGB, Fit: infer.Crop, CropFraction: 1, Interpolation: infer.Area,
		Mean: []float32{0}, Std: []float32{255},
	}
	if gray {
		p.Color = infer.Gray
	}
	return p
}

// withoutTest leaves out of set the pictures whose bytes stand in test too.
func withoutTest(ctx context.Context, set, test *dataset.Set, labels []string) (*dataset.Set, error) {
	if err := sameOrder(set, labels); err != nil {
		return nil, err
	}
	if test == nil {
		return set, nil
	}
	if _, err := evaluate.MapClasses(test, labels); err != nil {
		return nil, err
	}
	ours, err := set.GroupByContent(ctx)
	if err != nil {
		return nil, err
	}
	theirs, err := test.GroupByContent(ctx)
	if err != nil {
		return nil, err
	}
	judged := make(map[string]bool, theirs.Len())
	for i := range theirs.Len() {
		judged[theirs.Sample(i).Group] = true
	}
	var keep []int
	for i := range ours.Len() {
		if !judged[ours.Sample(i).Group] {
			keep = append(keep, i)
		}
	}
	if len(keep) == 0 {
		return nil, fmt.Errorf("cloud: train: %w: every picture of %s is in the test set too", train.ErrData, set.Name)
	}
	return set.Subset(set.Name, keep), nil
}

// sameOrder wants label i for class i: that is how the network is trained.
func sameOrder(set *dataset.Set, labels []string) error {
	outputs, err := evaluate.MapClasses(set, labels)
	if err != nil {
		return err
	}
	counts := set.Counts()
	for class, output := range outputs {
		if counts[class] > 0 && class != output {
			return fmt.Errorf("cloud: train: %w: class %d of the set is %q, which is label %d; the labels must stand in the order of the classes",
				evaluate.ErrClasses, class, set.Classes[class], output)
		}
	}
	return nil
}

// HoldOut parts a set in one to train on and one to judge by. Copies of a
// picture never part, and the same set parts in the same way every time.
func HoldOut(ctx context.Context, set *dataset.Set, fraction float64, seed uint64) (fit, test *dataset.Set, err error) {
	grouped, err := set.GroupByContent(ctx)
	if err != nil {
		return nil, nil, err
	}
	fit, _, test, err = grouped.Split(1-fraction, 0, seed)
	if err != nil {
		return nil, nil, err
	}
	if fit.Len() == 0 || test.Len() == 0 {
		return nil, nil, fmt.Errorf("cloud: %s: %w: %d pictures are too few to hold some out for the test; name a test set", set.Name, dataset.ErrEmpty, set.Len())
	}
	return fit, test, nil
}

// EvaluateModel judges a model in the device's own runtime. progress may be
// nil; it is called after every picture and should return quickly.
func EvaluateModel(ctx context.Context, o host.Options, model []byte, spec *infer.Spec, set *dataset.Set, progress func(done, total int)) (*evaluate.Report, error) {
	return Evaluate(ctx, o, model, spec, set, evaluate.Options{Progress: progress})
}

// Evaluate is EvaluateModel with all options.
func Evaluate(ctx context.Context, o host.Options, model []byte, spec *infer.Spec, set *dataset.Set, e evaluate.Options) (r *evaluate.Report, err error) {
	if e.Workers < 1 {
		e.Workers = evaluateWorkers
	}
	// Classes that do not fit are no reason to start anything.
	if _, err := evaluate.MapClasses(set, spec.Labels); err != nil {
		return nil, err
	}
	pool, err := host.NewPool(ctx, max(1, e.Workers-1), o, model, spec, protocol.Runtime{})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	return evaluate.Run(ctx, set, spec, pool, e)
}

// evaluateWorkers: two children, and one picture more that is being decoded.
const evaluateWorkers = 3

// Summary is what the registry keeps of a report as a model's metrics.
func Summary(r *evaluate.Report) map[string]any {
	return map[string]any{
		"dataset": r.Dataset, "n": r.N, "top1": r.Top1, "top5": r.Top5, "macro_f1": r.Macro.F1, "ece": r.ECE,
	}
}
