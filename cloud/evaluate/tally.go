package evaluate

import (
	"cmp"
	"slices"
	"time"

	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/infer"
)

const (
	topK       = 5
	ecBins     = 15
	keepWorst  = 20
	fixedPoint = 1 << 32 // confidences are summed as integers: the order must not matter
)

// Outcome is the answer to one picture, in the order of the set.
type Outcome struct {
	Actual, Predicted int32   // outputs of the model
	P                 float32 // of Predicted
	Skipped           bool    // unreadable; the other fields are zero
}

// Correct says whether the best class was the right one.
func (o Outcome) Correct() bool { return !o.Skipped && o.Actual == o.Predicted }

// tally counts answers as they come. It is guarded by its user.
type tally struct {
	set     *dataset.Set
	support []int // by output, of the set
	n       int
	skipped int
	top5    int

	outcomes     []Outcome
	pairs        map[[2]int]int // actual, predicted
	area         *auc
	calibration  [ecBins]struct{ n, right, sum uint64 }
	worst        []Mistake
	prep, invoke []time.Duration
}

func newTally(set *dataset.Set, classes []int, outputs int) *tally {
	support := make([]int, outputs)
	for class, n := range set.Counts() {
		if n > 0 {
			support[classes[class]] += n
		}
	}
	return &tally{set: set, support: support, outcomes: make([]Outcome, set.Len()),
		pairs: map[[2]int]int{}, area: newAUC(support)}
}

func (t *tally) skip(i int) {
	t.skipped++
	t.outcomes[i].Skipped = true
}

// add counts the answer to picture i. scores has all classes, top the best of
// them, best first.
func (t *tally) add(i, actual int, scores []float32, top []infer.Score, prep, invoke time.Duration) {
	t.n++
	best := top[0]
	o := Outcome{Actual: int32(actual), Predicted: int32(best.Class), P: best.P}
	t.outcomes[i] = o
	t.pairs[[2]int{actual, best.Class}]++
	if slices.ContainsFunc(top, func(s infer.Score) bool { return s.Class == actual }) {
		t.top5++
	}
	t.area.add(actual, scores)
	p := float64(min(max(best.P, 0), 1))
	bin := &t.calibration[min(int(p*ecBins), ecBins-1)]
	bin.n++
	bin.sum += uint64(p * fixedPoint)
	if o.Correct() {
		bin.right++
	} else {
		t.addWorst(Mistake{index: i, ID: t.set.Sample(i).ID, Actual: actual, Predicted: best.Class, P: best.P, PActual: scores[actual]})
	}
	t.prep, t.invoke = append(t.prep, prep), append(t.invoke, invoke)
}

// addWorst keeps the most confident mistakes.
func (t *tally) addWorst(m Mistake) {
	order := func(a, b Mistake) int { return cmp.Or(cmp.Compare(b.P, a.P), cmp.Compare(a.index, b.index)) }
	at, _ := slices.BinarySearchFunc(t.worst, m, order)
	if at == keepWorst {
		return
	}
	t.worst = slices.Insert(t.worst, at, m)
	t.worst = t.worst[:min(len(t.worst), keepWorst)]
}
