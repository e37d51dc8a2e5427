// Package evaluate says how good a classifier is: it runs a labelled set through
// the model and counts.
//
// The model runs in drover-infer, the program that will run it on the device, so
// that what is measured is what will happen there: decoding apart, the same
// preprocessing, kernels and rounding.
//
// Counting is streamed. What is kept per picture is its answer, a few bytes; the
// scores of all classes go into histograms (see auc). So 60,000 pictures of 1,001
// classes need tens of megabytes. The report does not depend on the order in
// which the pictures finish, latencies apart.
package evaluate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
)

// Classifier runs one picture. host.Pool is one.
type Classifier interface {
	// Classify returns the raw output tensor, in out if that is large enough.
	// It is called from Options.Workers goroutines at once.
	Classify(ctx context.Context, f *camera.Frame, out []byte) (host.Answer, error)
}

// Options of a run; the zero value is right for a pool of one or two children.
type Options struct {
	// Workers is how many pictures are under way at once: decoding one may
	// overlap with inferring another. 0 means 3. One more than there are
	// children keeps all of them busy.
	Workers int
	// SkipUnreadable counts pictures that cannot be decoded instead of failing.
	SkipUnreadable bool
	// Progress, if not nil, is called after every picture, one call at a time.
	// It should return quickly.
	Progress func(done, total int)
	// Model and DatasetDigest are copied into the report.
	Model         string
	DatasetDigest string
}

// ErrNothing means that no picture of the set could be evaluated.
var ErrNothing = errors.New("evaluate: no picture could be read")

// Run evaluates the model behind c, which spec describes, on set. Errors name
// the picture at which they happened; the first one ends the run. It returns
// ErrClasses if set and model do not speak of the same classes.
func Run(ctx context.Context, set *dataset.Set, spec *infer.Spec, c Classifier, o Options) (*Report, error) {
	classes, err := MapClasses(set, spec.Labels)
	if err != nil {
		return nil, err
	}
	if o.Workers < 1 {
		o.Workers = 3
	}
	r := &run{set: set, spec: spec, model: c, options: o, classes: classes,
		tally: newTally(set, classes, spec.Contract.Classes())}
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for range min(o.Workers, set.Len()) {
		g.Go(func() error { return r.work(ctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if r.tally.n == 0 {
		return nil, fmt.Errorf("%w of %s", ErrNothing, set.Name)
	}
	rep := r.tally.report(spec.Labels)
	rep.Model, rep.Dataset, rep.DatasetDigest = o.Model, set.Name, o.DatasetDigest
	rep.Seconds = time.Since(began).Seconds()
	return rep, nil
}

type run struct {
	set     *dataset.Set
	spec    *infer.Spec
	model   Classifier
	options Options
	classes []int // class of the set → output of the model

	next atomic.Int64

	mu    sync.Mutex // guards what follows
	tally *tally
	done  int
}

// work takes pictures until there are none.
func (r *run) work(ctx context.Context) error {
	out := make([]byte, r.spec.Contract.Output.Bytes())
	scores := make([]float32, r.spec.Contract.Classes())
	top := make([]infer.Score, 0, topK)
	for {
		i := int(r.next.Add(1)) - 1
		if i >= r.set.Len() {
			return nil
		}
		s := r.set.Sample(i)
		f, err := s.Load(ctx)
		if err != nil {
			if !r.options.SkipUnreadable || !errors.Is(err, dataset.ErrUnreadable) {
				return fmt.Errorf("evaluate: %w", err)
			}
			r.record(func() { r.tally.skip(i) })
			continue
		}
		a, err := r.model.Classify(ctx, f, out)
		if err != nil {
			return fmt.Errorf("evaluate: picture %s: %w", s.ID, err)
		}
		if scores, err = r.spec.Scores(a.Output, scores); err != nil {
			return fmt.Errorf("evaluate: picture %s: %w", s.ID, err)
		}
		top = r.spec.TopK(scores, top)
		r.record(func() { r.tally.add(i, r.classes[s.Class], scores, top, a.Prep, a.Invoke) })
	}
}

func (r *run) record(count func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	count()
	r.done++
	if r.options.Progress != nil {
		r.options.Progress(r.done, r.set.Len())
	}
}
