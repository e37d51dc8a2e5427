package evaluate

import (
	"cmp"
	"maps"
	"math"
	"slices"
)

// Report is what an evaluation found. The JSON names are stable.
type Report struct {
	Model         string `json:"model,omitempty"`
	Dataset       string `json:"dataset"`
	DatasetDigest string `json:"dataset_digest,omitempty"`

	N            int        `json:"n"` // pictures evaluated
	Skipped      int        `json:"skipped"`
	Top1         float64    `json:"top1"` // equal scores go to the lower class
	Top5         float64    `json:"top5"`
	Top1Interval [2]float64 `json:"top1_interval"` // Wilson, 95 %

	Macro    Averages `json:"macro"`    // over the classes that the set has
	Weighted Averages `json:"weighted"` // by the number of pictures
	AUC      *float64 `json:"auc_macro,omitempty"`

	ECE         float64 `json:"ece"` // expected calibration error, 15 bins
	Calibration []Bin   `json:"calibration"`

	Latency struct {
		Prep   Latency `json:"prep"`
		Invoke Latency `json:"invoke"`
	} `json:"latency"`
	Seconds float64 `json:"seconds"` // of the whole run

	Classes   []Class    `json:"classes"`             // those the set has or the model answered
	Confusion *Confusion `json:"confusion,omitempty"` // up to 64 classes
	Confused  []Pair     `json:"confused"`            // most frequent mistakes
	Worst     []Mistake  `json:"worst"`               // most confident mistakes

	Outcomes []Outcome `json:"-"` // per picture, for Compare
}

// Averages over classes.
type Averages struct {
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
	F1        float64 `json:"f1"`
}

// Class is one output of the model. A precision without answers and a recall
// without pictures are 0.
type Class struct {
	Class     int      `json:"class"`
	Label     string   `json:"label"`
	Support   int      `json:"support"`   // pictures of it
	Predicted int      `json:"predicted"` // answers of it
	Precision float64  `json:"precision"`
	Recall    float64  `json:"recall"`
	F1        float64  `json:"f1"`
	AUC       *float64 `json:"auc,omitempty"` // against the rest
}

// Bin is one interval of confidence of the best class.
type Bin struct {
	From       float64 `json:"from"`
	To         float64 `json:"to"`
	N          int     `json:"n"`
	Confidence float64 `json:"confidence"` // mean
	Accuracy   float64 `json:"accuracy"`
}

// Confusion is the matrix of actual (row) against predicted (column) classes.
type Confusion struct {
	Classes []int   `json:"classes"`
	Counts  [][]int `json:"counts"`
}

// Pair is a frequent mistake.
type Pair struct {
	Actual         int    `json:"actual"`
	Predicted      int    `json:"predicted"`
	ActualLabel    string `json:"actual_label"`
	PredictedLabel string `json:"predicted_label"`
	N              int    `json:"n"`
}

// Mistake is one wrongly classified picture.
type Mistake struct {
	ID             string  `json:"id"`
	Actual         int     `json:"actual"`
	Predicted      int     `json:"predicted"`
	ActualLabel    string  `json:"actual_label"`
	PredictedLabel string  `json:"predicted_label"`
	P              float32 `json:"p"`        // of the predicted class
	PActual        float32 `json:"p_actual"` // of the actual one
	index          int
}

const (
	maxMatrix  = 64
	keepPairs  = 20
	fullPoints = float64(fixedPoint)
)

// report turns counts into numbers.
func (t *tally) report(labels []string) *Report {
	r := &Report{N: t.n, Skipped: t.skipped, Top5: float64(t.top5) / float64(t.n), Outcomes: t.outcomes, Worst: append([]Mistake{}, t.worst...)}
	right := 0
	for pair, n := range t.pairs {
		if pair[0] == pair[1] {
			right += n
		}
	}
	r.Top1 = float64(right) / float64(t.n)
	r.Top1Interval[0], r.Top1Interval[1] = Wilson(right, t.n)
	r.Latency.Prep, r.Latency.Invoke = latencyOf(t.prep), latencyOf(t.invoke)
	t.classes(r, labels)
	r.average()
	t.calibrate(r)
	t.confusion(r, labels)
	for i := range r.Worst {
		m := &r.Worst[i]
		m.ActualLabel, m.PredictedLabel = labels[m.Actual], labels[m.Predicted]
	}
	return r
}

func (t *tally) classes(r *Report, labels []string) {
	n := len(t.support)
	support, predicted, right := make([]int, n), make([]int, n), make([]int, n)
	for pair, k := range t.pairs {
		support[pair[0]] += k
		predicted[pair[1]] += k
		if pair[0] == pair[1] {
			right[pair[0]] += k
		}
	}
	for c := range n {
		if support[c] == 0 && predicted[c] == 0 {
			continue
		}
		x := Class{Class: c, Label: labels[c], Support: support[c], Predicted: predicted[c],
			Precision: ratio(right[c], predicted[c]), Recall: ratio(right[c], support[c]),
			F1: ratio(2*right[c], support[c]+predicted[c])}
		if a, ok := t.area.area(c); ok {
			x.AUC = &a
		}
		r.Classes = append(r.Classes, x)
	}
}

// average fills in what is averaged over the classes that have pictures.
func (r *Report) average() {
	var area float64
	var classes, areas int
	for _, c := range r.Classes {
		if c.Support == 0 {
			continue
		}
		classes++
		r.Macro.add(c, 1)
		r.Weighted.add(c, float64(c.Support))
		if c.AUC != nil {
			area += *c.AUC
			areas++
		}
	}
	r.Macro.divide(float64(classes))
	r.Weighted.divide(float64(r.N))
	if areas > 0 {
		area /= float64(areas)
		r.AUC = &area
	}
}

func (a *Averages) add(c Class, weight float64) {
	a.Precision += weight * c.Precision
	a.Recall += weight * c.Recall
	a.F1 += weight * c.F1
}

func (a *Averages) divide(by float64) {
	a.Precision, a.Recall, a.F1 = a.Precision/by, a.Recall/by, a.F1/by
}

// calibrate fills in the expected calibration error: the mean distance of
// confidence and accuracy over bins of equal width.
// Source: Guo et al. 2017, "On calibration of modern neural networks".
func (t *tally) calibrate(r *Report) {
	for i, b := range t.calibration {
		x := Bin{From: float64(i) / ecBins, To: float64(i+1) / ecBins, N: int(b.n)}
		if b.n > 0 {
			x.Confidence = float64(b.sum) / fullPoints / float64(b.n)
			x.Accuracy = float64(b.right) / float64(b.n)
			r.ECE += float64(b.n) / float64(t.n) * math.Abs(x.Confidence-x.Accuracy)
		}
		r.Calibration = append(r.Calibration, x)
	}
}

func (t *tally) confusion(r *Report, labels []string) {
	wrong := slices.DeleteFunc(slices.Collect(maps.Keys(t.pairs)), func(p [2]int) bool { return p[0] == p[1] })
	slices.SortFunc(wrong, func(a, b [2]int) int {
		return cmp.Or(cmp.Compare(t.pairs[b], t.pairs[a]), cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
	})
	r.Confused = make([]Pair, 0, keepPairs)
	for _, p := range wrong[:min(len(wrong), keepPairs)] {
		r.Confused = append(r.Confused, Pair{p[0], p[1], labels[p[0]], labels[p[1]], t.pairs[p]})
	}
	if len(r.Classes) > maxMatrix {
		return
	}
	m := &Confusion{}
	for _, c := range r.Classes {
		m.Classes = append(m.Classes, c.Class)
	}
	for _, actual := range m.Classes {
		line := make([]int, len(m.Classes))
		for j, predicted := range m.Classes {
			line[j] = t.pairs[[2]int{actual, predicted}]
		}
		m.Counts = append(m.Counts, line)
	}
	r.Confusion = m
}

func ratio(a, b int) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}
