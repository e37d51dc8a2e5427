package statuspage

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func statusDoc(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/STATUS.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestEveryMetricIsDocumented(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{busy})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		row := f.GetName() + " " + strings.ToLower(f.GetType().String())
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got = append(got, row+" "+strings.Join(labels, ","))
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(drover_[a-z0-9_]+)` \\| ([a-z]+) \\| ([a-z0-9, ]*)\\|").FindAllStringSubmatch(statusDoc(t), -1) {
		labels := strings.FieldsFunc(m[3], func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(labels)
		documented = append(documented, m[1]+" "+m[2]+" "+strings.Join(labels, ","))
	}
	slices.Sort(documented)
	slices.Sort(got)
	if !slices.Equal(got, documented) {
		t.Errorf("metrics\n%s\ndocumented\n%s", strings.Join(got, "\n"), strings.Join(documented, "\n"))
	}
}

func TestEveryFieldIsDocumented(t *testing.T) {
	s := busy()
	s.LinkError, s.Outbox.Problem, s.Model.Error, s.Cameras[0].Error = "x", "x", "x", "x"
	s.State.Candidate = s.State.Active
	s.State.Update.Plan, s.State.Update.Release, s.State.Update.Message = "x", "x", "x"
	s.History[0].Event.Plan = "x"
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		t.Fatal(err)
	}
	doc := statusDoc(t)
	n := 0
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, value := range v {
				n++
				if !strings.Contains(doc, "`"+key+"`") {
					t.Errorf("%s.%s is not documented", path, key)
				}
				if key != "labels" {
					walk(path+"."+key, value)
				}
			}
		case []any:
			for _, value := range v {
				walk(path+"[]", value)
			}
		}
	}
	walk("", tree)
	if n < 80 {
		t.Errorf("only %d fields seen", n)
	}
}
