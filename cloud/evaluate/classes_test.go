package evaluate

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/cloud/dataset"
)

// indexed is a set whose labels are numbers in a table.
func indexed(t *testing.T, labels ...string) *dataset.Set {
	t.Helper()
	set := numbered(t, false, labels...)
	dir := t.TempDir()
	if _, err := set.Export(t.Context(), filepath.Join(dir, "x"), dataset.ExportOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := dataset.OpenCSV(filepath.Join(dir, "x", "labels.csv"), "file", "name")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMapClasses(t *testing.T) {
	three := []string{"background", "tench, Tinca tinca", "crane"}
	for name, c := range map[string]struct {
		set    *dataset.Set
		labels []string
		want   []int
		says   string // of an error
	}{
		"by name":                {numbered(t, false, "cat", "dog"), []string{"dog", "cat"}, []int{1, 0}, ""},
		"by folded name":         {numbered(t, false, "hot_dog", "ice-cream"), []string{"Ice cream", "Hot Dog"}, []int{1, 0}, ""},
		"by synonym":             {numbered(t, false, "tench"), three, []int{1}, ""},
		"strict name first":      {numbered(t, false, "Cat"), []string{"cat", "Cat"}, []int{1}, ""},
		"numbers as labels":      {numbered(t, false, "1", "2"), []string{"2", "1"}, []int{1, 0}, ""},
		"numbers as outputs":     {numbered(t, false, "0", "2"), three, []int{0, 2}, ""},
		"table of indices":       {indexed(t, "0", "2"), []string{"2", "1", "0"}, []int{0, 1, 2}, ""},
		"missing":                {numbered(t, false, "cat", "dog", "emu"), []string{"cat", "x"}, nil, `no label for "dog", "emu"; the model has the labels ["cat" "x"]`},
		"twice among labels":     {numbered(t, false, "crane"), []string{"crane", "crane"}, nil, "outputs [0 1]"},
		"two classes, one label": {numbered(t, false, "hot dog", "hot_dog"), []string{"hot-dog", "x"}, nil, "both mean output 0"},
		"index too large":        {indexed(t, "0", "3"), three, nil, "class 3, the model has outputs 0…2"},
		"number too large":       {numbered(t, false, "0", "3"), three, nil, "class 3"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := MapClasses(c.set, c.labels)
			if c.says != "" {
				if !errors.Is(err, ErrClasses) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("got %v, wanted an error that says %q", err, c.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestMapClassesOfImageNetSample(t *testing.T) {
	data := filepath.Join("..", "..", "..", "shared", "data")
	table := filepath.Join(data, "images", "imagenet-sample", "labels.csv")
	text, err := os.ReadFile(filepath.Join(data, "models", "imagenet_labels_1001.txt"))
	if err != nil {
		t.Skipf("no test models: %v", err)
	}
	labels := strings.Split(strings.TrimSpace(string(text)), "\n")
	byIndex, err := dataset.OpenCSV(table, "file", "index1001")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MapClasses(byIndex, labels); err != nil {
		t.Error(err)
	}
	if _, err := MapClasses(byIndex, labels[:500]); !errors.Is(err, ErrClasses) {
		t.Errorf("500 labels: %v", err)
	}
}
