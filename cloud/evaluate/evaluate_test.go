package evaluate

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
)

// table is a classifier that answers a gray picture by the value of its first
// pixel: the row of scores of that number.
type table struct {
	rows [][]float32
	fail error
}

func (c table) Classify(_ context.Context, f *camera.Frame, out []byte) (host.Answer, error) {
	if c.fail != nil {
		return host.Answer{}, c.fail
	}
	out = out[:0]
	for _, p := range c.rows[f.Data[0]] {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(p))
	}
	k := time.Duration(f.Data[0] + 1)
	return host.Answer{Output: out, Prep: k * time.Millisecond, Invoke: 10 * k * time.Millisecond}, nil
}

func spec(labels ...string) *infer.Spec {
	return &infer.Spec{
		Contract: infer.Contract{
			Input:  infer.TensorSpec{Shape: []int{1, 1, 1, 1}, DType: infer.Float32},
			Output: infer.TensorSpec{Shape: []int{1, len(labels)}, DType: infer.Float32},
		},
		Labels: labels, Postprocess: infer.DefaultPostprocess(),
	}
}

// numbered writes a folder set in which picture i has the value i and the i-th
// class, and one unreadable file if broken.
func numbered(t *testing.T, broken bool, classes ...string) *dataset.Set {
	t.Helper()
	dir := t.TempDir()
	for i, class := range classes {
		img := image.NewGray(image.Rect(0, 0, 1, 1))
		img.SetGray(0, 0, color.Gray{Y: uint8(i)})
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		if broken && i == 0 {
			b.Truncate(b.Len() - 20) // the header stays whole: it is seen only when decoded
		}
		p := filepath.Join(dir, class, fmt.Sprintf("%02d.png", i))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func ptr(x float64) *float64 { return &x }

// The numbers were computed by hand from these six answers (columns a, b, c):
//
//	0 a → .7 .2 .1   right
//	1 a → .4 .4 .2   right: the tie goes to the lower class
//	2 a → .1 .8 .1   b
//	3 b → .2 .6 .2   right
//	4 b → .5 .3 .2   a
//	5 c → .1 .1 .8   right
func TestNumbersByHand(t *testing.T) {
	rows := [][]float32{{.7, .2, .1}, {.4, .4, .2}, {.1, .8, .1}, {.2, .6, .2}, {.5, .3, .2}, {.1, .1, .8}}
	set := numbered(t, false, "a", "a", "a", "b", "b", "c")
	var steps []int
	r, err := Run(t.Context(), set, spec("a", "b", "c"), table{rows: rows}, Options{Model: "m", DatasetDigest: "d",
		Progress: func(done, total int) { steps = append(steps, done*10+total) }})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]int{16, 26, 36, 46, 56, 66}, steps); d != "" {
		t.Errorf("progress: %s", d)
	}
	third := 1.0 / 3
	// AUC a: own .7 .4 .1, rest .2 .5 .1 → pairs 3 + 2 + .5 of 9.
	// AUC b: own .6 .3, rest .2 .4 .8 .1 → pairs 3 + 2 of 8.
	// AUC c: .8 above all → 1.
	aucA, aucB := 5.5/9, 5.0/8
	want := &Report{
		Model: "m", Dataset: set.Name, DatasetDigest: "d", N: 6, Top1: 4.0 / 6, Top5: 1,
		Top1Interval: [2]float64{0.30000, 0.90323},
		Macro:        Averages{(2*third + .5 + 1) / 3, (2*third + .5 + 1) / 3, (2*third + .5 + 1) / 3},
		Weighted:     Averages{(2.0 + 1 + 1) / 6, (2.0 + 1 + 1) / 6, (2.0 + 1 + 1) / 6},
		AUC:          ptr((aucA + aucB + 1) / 3),
		// Bins of a fifteenth: .7 right; .4 right; .8 one right, one wrong; .6 right; .5 wrong.
		ECE: (.3 + .6 + 2*.3 + .4 + .5) / 6,
		Classes: []Class{
			{0, "a", 3, 3, 2 * third, 2 * third, 2 * third, &aucA},
			{1, "b", 2, 2, .5, .5, .5, &aucB},
			{2, "c", 1, 1, 1, 1, 1, ptr(1)},
		},
		Confusion: &Confusion{[]int{0, 1, 2}, [][]int{{2, 1, 0}, {1, 1, 0}, {0, 0, 1}}},
		Confused:  []Pair{{0, 1, "a", "b", 1}, {1, 0, "b", "a", 1}},
		Worst:     []Mistake{{"a/02.png", 0, 1, "a", "b", .8, .1, 2}, {"b/04.png", 1, 0, "b", "a", .5, .3, 4}},
		Outcomes:  []Outcome{{0, 0, .7, false}, {0, 0, .4, false}, {0, 1, .8, false}, {1, 1, .6, false}, {1, 0, .5, false}, {2, 2, .8, false}},
	}
	want.Latency.Prep = Latency{Mean: 3.5, P50: 3, P99: 6, Max: 6}
	want.Latency.Invoke = Latency{Mean: 35, P50: 30, P99: 60, Max: 60}
	opts := cmp.Options{cmp.AllowUnexported(Mistake{}), cmpopts.IgnoreFields(Report{}, "Calibration", "Seconds"),
		cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-5 })}
	if d := cmp.Diff(want, r, opts); d != "" {
		t.Error(d)
	}
	n := 0
	for _, b := range r.Calibration {
		n += b.N
	}
	if len(r.Calibration) != 15 || n != 6 || r.Calibration[12].Accuracy != .5 {
		t.Errorf("calibration %+v", r.Calibration)
	}
}

func TestReportDoesNotDependOnOrder(t *testing.T) {
	rows, classes := make([][]float32, 200), make([]string, 200)
	for i := range rows {
		a := float32(i*37%200) / 200
		rows[i], classes[i] = []float32{a, 1 - a}, []string{"a", "b"}[i%2]
	}
	set := numbered(t, false, classes...)
	byteOf := func(workers int) string {
		// Sets are sorted by class and number, so values are not indices.
		r, err := Run(t.Context(), set, spec("a", "b"), table{rows: rows}, Options{Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		r.Seconds = 0
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	one := byteOf(1)
	for range 5 {
		if many := byteOf(8); many != one {
			t.Fatalf("eight workers report\n%s\none reports\n%s", many, one)
		}
	}
	for _, name := range []string{`"n":200`, `"top1":`, `"top5":`, `"top1_interval":`, `"macro":`, `"auc_macro":`, `"ece":`, `"p99_ms":`} {
		if !strings.Contains(one, name) {
			t.Errorf("no %s in the JSON", name)
		}
	}
}

func TestTopFiveOfMany(t *testing.T) {
	// Twelve equal scores: the best five are 0…4.
	row := make([]float32, 12)
	labels := make([]string, 12)
	for i := range labels {
		row[i], labels[i] = 0.5, fmt.Sprintf("c%02d", i)
	}
	set := numbered(t, false, "c00", "c04", "c05", "c11")
	r, err := Run(t.Context(), set, spec(labels...), table{rows: [][]float32{row, row, row, row}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Top1 != .25 || r.Top5 != .5 {
		t.Errorf("top1 %v, top5 %v; wanted 0.25 and 0.5", r.Top1, r.Top5)
	}
}

func TestUnreadableAndFailing(t *testing.T) {
	rows := [][]float32{{1, 0}, {1, 0}, {0, 1}}
	set := numbered(t, true, "a", "a", "b")
	sp := spec("a", "b")
	_, err := Run(t.Context(), set, sp, table{rows: rows}, Options{})
	if !errors.Is(err, dataset.ErrUnreadable) || !strings.Contains(err.Error(), "a/00.png") {
		t.Errorf("strict: %v", err)
	}
	r, err := Run(t.Context(), set, sp, table{rows: rows}, Options{SkipUnreadable: true})
	if err != nil || r.N != 2 || r.Skipped != 1 || r.Top1 != 1 {
		t.Errorf("skipping: %+v, %v", r, err)
	}
	boom := errors.New("invoke failed")
	_, err = Run(t.Context(), set, sp, table{fail: boom}, Options{SkipUnreadable: true})
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), ".png") {
		t.Errorf("failing model: %v", err)
	}
	_, err = Run(t.Context(), set.Subset("one", []int{0}), sp, table{}, Options{SkipUnreadable: true})
	if !errors.Is(err, ErrNothing) {
		t.Errorf("nothing readable: %v", err)
	}
	_, err = Run(t.Context(), set, sp, table{rows: [][]float32{{1, 0}, {1}, {1}}}, Options{SkipUnreadable: true})
	if !errors.Is(err, infer.ErrContract) {
		t.Errorf("short output: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = Run(ctx, set, sp, table{rows: rows}, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestHTML(t *testing.T) {
	evil := `<script>alert("x")</script>`
	set := numbered(t, false, "a", "b")
	r, err := Run(t.Context(), set, spec("a", "b", evil), table{rows: [][]float32{{0, 0, 1}, {0, 1, 0}}}, Options{Model: evil})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	if strings.Contains(s, "<script") || !strings.Contains(s, "&lt;script&gt;") {
		t.Error("a label is not escaped")
	}
	for _, want := range []string{"50.00 %", "<svg", "prefers-color-scheme", "a taken for b: 0", "b taken for b: 1"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in the page", want)
		}
	}
	for _, never := range []string{"http:", "https:", "src="} {
		if strings.Contains(s, never) {
			t.Errorf("the page needs something from outside: %q", never)
		}
	}
}
