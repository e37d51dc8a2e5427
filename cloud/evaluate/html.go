package evaluate

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"slices"
)

//go:embed report.html
var page string

// HTML writes the report as one page that needs nothing else: no scripts, no
// fonts, no network. It follows the reader's choice of light or dark.
func (r *Report) HTML(w io.Writer) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"percent": func(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) },
		"share":   func(x float64) string { return fmt.Sprintf("%.1f", 100*x) },
		"number":  func(x float64) string { return fmt.Sprintf("%.3f", x) },
		"maybe":   maybe,
		"ms":      func(x float64) string { return fmt.Sprintf("%.2f", x) },
	}).Parse(page)
	if err != nil {
		return fmt.Errorf("evaluate: report page: %w", err)
	}
	view := struct {
		*Report
		Matrix *matrixView
		Bars   []barView
		Rows   []Class
		Hidden int
	}{Report: r, Matrix: r.matrix(), Bars: r.bars(), Rows: r.Classes}
	if len(view.Rows) > maxRows {
		view.Rows = weakest(r.Classes)
		view.Hidden = len(r.Classes) - maxRows
	}
	if err := t.Execute(w, view); err != nil {
		return fmt.Errorf("evaluate: report page: %w", err)
	}
	return nil
}

// maxRows is how many classes a page shows.
const maxRows = 120

// weakest are the classes with the lowest F1.
func weakest(all []Class) []Class {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b Class) int {
		switch {
		case a.F1 < b.F1:
			return -1
		case a.F1 > b.F1:
			return 1
		}
		return 0
	})
	return all[:maxRows]
}

func maybe(x *float64) string {
	if x == nil {
		return "–"
	}
	return fmt.Sprintf("%.3f", *x)
}

// matrixView is the drawing of the confusion matrix, in pixels.
type matrixView struct {
	Size, Margin, Width, Height int
	Rows, Columns               []labelView
	Cells                       []cellView
}

type labelView struct {
	X, Y int
	Text string
}

type cellView struct {
	X, Y, TX, TY int
	Share        string // of the row, as opacity
	Right        bool
	Light        bool // the text stands on a strong colour
	Text, Title  string
}

func (r *Report) matrix() *matrixView {
	if r.Confusion == nil || len(r.Classes) < 2 {
		return nil
	}
	n := len(r.Classes)
	m := &matrixView{Size: 40, Margin: 120}
	if n > 24 {
		m.Size = 14
	}
	m.Width = m.Margin + n*m.Size + 8
	m.Height = m.Width
	for i, c := range r.Classes {
		at := m.Margin + i*m.Size + m.Size/2
		m.Rows = append(m.Rows, labelView{m.Margin - 6, at + 4, short(c.Label)})
		m.Columns = append(m.Columns, labelView{at, m.Margin - 6, short(c.Label)})
		for j, k := range r.Confusion.Counts[i] {
			x := cellView{X: m.Margin + j*m.Size, Y: m.Margin + i*m.Size, Right: i == j,
				Title: fmt.Sprintf("%s taken for %s: %d", c.Label, r.Classes[j].Label, k)}
			x.TX, x.TY = x.X+m.Size/2, x.Y+m.Size/2+4
			share := ratio(k, c.Support)
			x.Share, x.Light = fmt.Sprintf("%.3f", math.Sqrt(share)), share > 0.3
			if k > 0 && m.Size > 20 {
				x.Text = fmt.Sprint(k)
			}
			m.Cells = append(m.Cells, x)
		}
	}
	return m
}

func short(label string) string {
	if r := []rune(label); len(r) > 16 {
		return string(r[:15]) + "…"
	}
	return label
}

// barView is one bin of the calibration chart of 300 × 200 pixels.
type barView struct {
	X, Y, H int
	Share   string // of the fullest bin, as opacity
	Title   string
}

func (r *Report) bars() []barView {
	out := make([]barView, 0, len(r.Calibration))
	fullest := 1
	for _, b := range r.Calibration {
		fullest = max(fullest, b.N)
	}
	for i, b := range r.Calibration {
		h := int(math.Round(200 * b.Accuracy))
		out = append(out, barView{X: 20 * i, Y: 200 - h, H: h, Share: fmt.Sprintf("%.3f", 0.2+0.7*math.Sqrt(ratio(b.N, fullest))), Title: fmt.Sprintf(
			"confidence %.2f to %.2f: %d pictures, mean confidence %.3f, accuracy %.3f", b.From, b.To, b.N, b.Confidence, b.Accuracy)})
	}
	return out
}
