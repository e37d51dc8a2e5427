package train

import (
	"bytes"
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunLearns(t *testing.T) {
	test := blobs(200, 12, 10, 1, 4)
	for _, c := range []struct {
		network string
		change  func(s *Spec)
	}{
		{NetworkSoftmax, nil},
		{NetworkMLP, nil},
		{NetworkLeNet, nil},
		{NetworkLeNet, func(s *Spec) { s.Same = true; s.Augment.Shift = 1; s.WeightDecay = 0.01; s.Warmup = 0.2 }},
		{NetworkMLP, func(s *Spec) {
			s.Optimizer, s.Momentum, s.LearningRate, s.Schedule = OptimizerSGD, 0.9, 0.05, ScheduleConstant
		}},
	} {
		job := tiny(c.network)
		if c.change != nil {
			c.change(&job.Spec)
		}
		a, err := Run(t.Context(), job)
		if err != nil {
			t.Errorf("%s: %v", c.network, err)
			continue
		}
		if acc := must(a.Float.Accuracy(t.Context(), test)); acc < 0.95 {
			t.Errorf("%+v: accuracy %v", job.Spec, acc)
		}
	}
}

func TestSameSeedSameBytesOnAnyNumberOfCores(t *testing.T) {
	job := tiny(NetworkLeNet)
	job.Spec.Augment = Augment{Shift: 1, Flip: true}
	job.Spec.Epochs, job.Spec.Batch = 1, 27
	model := func(procs int) []byte {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		return must(Run(t.Context(), job)).TFLite
	}
	one := model(1)
	for _, procs := range []int{2, 5, 16} {
		if !bytes.Equal(model(procs), one) {
			t.Errorf("%d processors give another model than one", procs)
		}
	}
	job.Spec.Seed++
	if bytes.Equal(model(2), one) {
		t.Error("another seed gives the same model")
	}
}

func TestArtifactDescribesItself(t *testing.T) {
	job := tiny(NetworkLeNet)
	job.Spec.Channels, job.Spec.Epochs = 3, 1
	job.Train = blobs(64, 12, 10, 3, 4)
	job.Preprocess = infer.Preprocess{Color: infer.RGB, Fit: infer.Crop, CropFraction: 0.875, Interpolation: infer.Bilinear,
		Mean: []float32{127.5, 100, 90}, Std: []float32{127.5, 60, 70}}
	a, err := Run(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Spec.Check(); err != nil {
		t.Error(err)
	}
	m, err := modelfile.Parse(a.TFLite)
	if err != nil {
		t.Fatal(err)
	}
	if c := must(m.Contract()); c.Diff(a.Spec.Contract) != nil || !slices.Equal(c.Input.Shape, []int{1, 12, 10, 3}) || c.Classes() != 4 ||
		c.Input.DType != infer.Int8 || c.Output.Quant.Scales[0] != 1.0/256 || c.Output.Quant.ZeroPoints[0] != -128 {
		t.Errorf("contract %+v", c)
	}
	if l := must(m.Labels()); !slices.Equal(l, job.Labels) {
		t.Errorf("labels %q", l)
	}
	mean, std, err := m.Normalization()
	if err != nil || !slices.Equal(mean, job.Preprocess.Mean) || !slices.Equal(std, job.Preprocess.Std) {
		t.Errorf("mean %v, std %v, %v", mean, std, err)
	}
	// The input's range covers all channels: the widest is channel 1.
	q := a.Spec.Contract.Input.Quant
	lo, hi := q.Scales[0]*float32(-128-q.ZeroPoints[0]), q.Scales[0]*float32(127-q.ZeroPoints[0])
	if lo > -100.0/60+q.Scales[0] || hi < 155.0/60-q.Scales[0] {
		t.Errorf("input covers %v to %v", lo, hi)
	}
	l := a.Lineage
	if l.DatasetDigest != "d1" || l.Pictures != 64 || l.Parameters != a.Float.Size() || len(l.CalibrationDigest) != 64 || l.CalibrationSamples != 64 {
		t.Errorf("lineage %+v", l)
	}
}

func TestGrayInputKeepsEveryPixelValue(t *testing.T) {
	a, err := Run(t.Context(), tiny(NetworkSoftmax))
	if err != nil {
		t.Fatal(err)
	}
	q := a.Spec.Contract.Input.Quant
	for pixel := range 256 {
		real := float32(pixel) / 255
		if got := int(math.Round(float64(real/q.Scales[0]))) + int(q.ZeroPoints[0]); got != pixel-128 {
			t.Fatalf("pixel %d becomes %d", pixel, got)
		}
	}
}

func TestProgressCountsEveryBatch(t *testing.T) {
	job := tiny(NetworkSoftmax)
	job.Spec.Epochs, job.Spec.Batch, job.Spec.PerEpoch = 3, 50, 120
	var seen []Progress
	job.Progress = func(p Progress) { seen = append(seen, p) }
	if _, err := Run(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 9 {
		t.Fatalf("%d calls, wanted 9", len(seen))
	}
	for i, p := range seen {
		if p.Epoch != i/3+1 || p.Batch != i%3+1 || p.Batches != 3 || p.Epochs != 3 || p.PicturesPlanned != 360 || p.PicturesPerSec <= 0 || p.Loss <= 0 {
			t.Errorf("call %d: %+v", i, p)
		}
	}
	if p := seen[8]; p.PicturesSeen != 360 || p.Accuracy <= seen[0].Accuracy {
		t.Errorf("last call %+v, first %+v", p, seen[0])
	}
}

func TestRunStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	job := tiny(NetworkMLP)
	job.Spec.Epochs = 10000
	calls := 0
	job.Progress = func(Progress) {
		if calls++; calls == 3 {
			cancel()
		}
	}
	if _, err := Run(ctx, job); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if calls != 3 {
		t.Errorf("%d batches ran, wanted to stop behind 3", calls)
	}
}

func TestRunNamesWhatIsWrong(t *testing.T) {
	unreadable := errors.New("disk on fire")
	for name, c := range map[string]struct {
		change func(j *Job)
		want   error
	}{
		"a rate that is too high": {func(j *Job) { j.Spec.LearningRate = 1e30 }, ErrDiverged},
		"pictures that are NaN":   {func(j *Job) { j.Train.(*memory).std = 0; j.Train.(*memory).mean = 300; j.Train.(*memory).pixels[3] = 0 }, ErrDiverged},
		"no pictures":             {func(j *Job) { j.Train = &memory{} }, ErrData},
		"no samples":              {func(j *Job) { j.Train = nil }, ErrData},
		"class out of range":      {func(j *Job) { j.Train.(*memory).classes[7] = 4 }, ErrData},
		"unreadable pictures":     {func(j *Job) { j.Train.(*memory).err = unreadable }, unreadable},
		"unreadable, kind":        {func(j *Job) { j.Train.(*memory).err = unreadable }, ErrData},
		"labels missing":          {func(j *Job) { j.Labels = j.Labels[:3] }, ErrSpec},
		"recipe without std":      {func(j *Job) { j.Preprocess.Std = nil }, ErrSpec},
		"recipe of other colour":  {func(j *Job) { j.Preprocess.Color = infer.RGB }, ErrSpec},
		"unknown network":         {func(j *Job) { j.Spec.Network = "transformer" }, ErrSpec},
		"unknown optimizer":       {func(j *Job) { j.Spec.Optimizer = "magic" }, ErrSpec},
		"unknown schedule":        {func(j *Job) { j.Spec.Schedule = "whenever" }, ErrSpec},
		"no epochs":               {func(j *Job) { j.Spec.Epochs = 0 }, ErrSpec},
		"no batch":                {func(j *Job) { j.Spec.Batch = 0 }, ErrSpec},
		"rate NaN":                {func(j *Job) { j.Spec.LearningRate = math.NaN() }, ErrSpec},
		"filters missing":         {func(j *Job) { j.Spec.Filters = nil }, ErrSpec},
		"more layers than pixels": {func(j *Job) { j.Spec.Filters = []int{2, 2, 2, 2} }, ErrSpec},
		"no calibration":          {func(j *Job) { j.Spec.Calibration = 0 }, ErrSpec},
		"shift as large as it is": {func(j *Job) { j.Spec.Augment.Shift = 10 }, ErrSpec},
		"layer of width 0":        {func(j *Job) { j.Spec.Hidden = []int{0} }, ErrSpec},
	} {
		job := tiny(NetworkLeNet)
		job.Train = blobs(40, 12, 10, 1, 4)
		c.change(&job)
		if _, err := Run(t.Context(), job); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, wanted %v", name, err, c.want)
		}
	}
	if _, err := Preset("best"); !errors.Is(err, ErrSpec) {
		t.Errorf("unknown preset: %v", err)
	}
}

func TestScheduleRisesAndFalls(t *testing.T) {
	s := Spec{LearningRate: 1, Schedule: ScheduleCosine, Warmup: 0.1}
	top := 0
	for i := range 100 {
		if r := s.rate(i, 100); r <= 0 || r > 1 {
			t.Fatalf("rate %v at step %d", r, i)
		}
		if s.rate(i, 100) > s.rate(top, 100) {
			top = i
		}
	}
	if top < 8 || top > 11 || s.rate(99, 100) > 0.01 {
		t.Errorf("the rate is highest at step %d and ends at %v", top, s.rate(99, 100))
	}
}

func TestAugmentDependsOnPictureAndEpochOnly(t *testing.T) {
	s := Shape{5, 6, 2}
	src := make([]float32, s.Size())
	for i := range src {
		src[i] = float32(i)
	}
	a := Augment{Shift: 2, Flip: true}
	apply := func(epoch, picture int) []float32 {
		x := slices.Clone(src)
		a.apply(x, make([]float32, s.Size()), s, 1, epoch, picture)
		return x
	}
	distinct := map[float32]bool{}
	for picture := range 100 {
		x := apply(0, picture)
		if !slices.Equal(x, apply(0, picture)) {
			t.Fatal("not reproducible")
		}
		// The middle of a channel moves by at most two pixels, or its mirror's.
		row, col := int(x[2*6+3])/6, int(x[2*6+3])%6
		if row > 4 || col > 5 {
			t.Fatalf("pixel of another channel: %v", x[2*6+3])
		}
		distinct[x[2*6+3]] = true
	}
	if len(distinct) < 15 {
		t.Errorf("only %d of 25 to 30 places seen", len(distinct))
	}
	if slices.Equal(apply(0, 3), apply(1, 3)) && slices.Equal(apply(0, 4), apply(1, 4)) && slices.Equal(apply(0, 5), apply(1, 5)) {
		t.Error("every epoch varies the pictures alike")
	}
}

func TestStepAllocatesNothing(t *testing.T) {
	job := tiny(NetworkLeNet)
	net := must(NewNetwork(job.Spec))
	p := net.newPass(4)
	x, classes := make([]float32, 4*net.In.Size()), []int{0, 1, 2, 3}
	if n := testing.AllocsPerRun(10, func() {
		logits := p.forward(x, 4, nil)
		softmaxCrossEntropy(logits, classes, 4)
		p.backward(logits, 4)
	}); n != 0 {
		t.Errorf("%v allocations per shard", n)
	}
}
