package evaluate

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/droverhq/drover/cloud/dataset"
)

// ErrClasses is wrapped when a set has classes that the model does not know.
var ErrClasses = errors.New("evaluate: the set's classes do not fit the model's labels")

// MapClasses tells which output of a model each class of a set means. Classes
// that are numbers in a table mean that output. Names are looked up among the
// labels: first as they are, then without regard to case, spaces, - and _, then
// among the synonyms of labels like "tench, Tinca tinca". Folders named by
// numbers that are no labels mean that output too.
func MapClasses(set *dataset.Set, labels []string) ([]int, error) {
	out := make([]int, len(set.Classes))
	used := set.Counts()
	if set.Indexed {
		return out, byIndex(set.Classes, used, out, len(labels))
	}
	find := newFinder(labels)
	var missing []string
	for i, name := range set.Classes {
		found := find.label(name)
		switch {
		case len(found) == 1:
			out[i] = found[0]
		case len(found) > 1:
			return nil, fmt.Errorf("%w: %q is the label of outputs %v; use class indices in a CSV", ErrClasses, name, found)
		case used[i] > 0:
			missing = append(missing, strconv.Quote(name))
		}
	}
	if len(missing) == 0 {
		return out, distinct(set.Classes, used, out, labels)
	}
	if allNumbers(set.Classes) {
		return out, byIndex(set.Classes, used, out, len(labels))
	}
	more := ""
	if n := len(missing); n > 10 {
		missing, more = missing[:10], fmt.Sprintf(" and %d more", n-10)
	}
	return nil, fmt.Errorf("%w: no label for %s%s; the model has %s; give a labels file with one label a line, in the order of the outputs, or a CSV of class indices",
		ErrClasses, strings.Join(missing, ", "), more, describe(labels))
}

func byIndex(classes []string, used, out []int, outputs int) error {
	for i, name := range classes {
		n, err := strconv.Atoi(name)
		if err != nil {
			return fmt.Errorf("%w: class %q is no number", ErrClasses, name)
		}
		if n >= outputs && used[i] > 0 {
			return fmt.Errorf("%w: the set has class %d, the model has outputs 0…%d; is this the right label column?", ErrClasses, n, outputs-1)
		}
		out[i] = n
	}
	return nil
}

// distinct refuses two classes that mean one output: their pictures could not be
// told apart.
func distinct(classes []string, used, out []int, labels []string) error {
	seen := map[int]string{}
	for i, name := range classes {
		if used[i] == 0 {
			continue
		}
		if other, twice := seen[out[i]]; twice {
			return fmt.Errorf("%w: %q and %q both mean output %d (%q)", ErrClasses, other, name, out[i], labels[out[i]])
		}
		seen[out[i]] = name
	}
	return nil
}

func allNumbers(names []string) bool {
	for _, n := range names {
		if _, err := strconv.ParseUint(n, 10, 31); err != nil {
			return false
		}
	}
	return true
}

func describe(labels []string) string {
	if len(labels) <= 12 {
		return fmt.Sprintf("the labels %q", labels)
	}
	return fmt.Sprintf("%d labels: %q, …", len(labels), labels[:5])
}

// finder looks labels up, strict ways first.
type finder struct{ exact, folded, synonyms map[string][]int }

func newFinder(labels []string) *finder {
	f := &finder{map[string][]int{}, map[string][]int{}, map[string][]int{}}
	for i, l := range labels {
		f.exact[l] = append(f.exact[l], i)
		f.folded[fold(l)] = append(f.folded[fold(l)], i)
		mine := map[string]bool{}
		for s := range strings.SplitSeq(l, ",") {
			if s = fold(s); s != "" && !mine[s] {
				mine[s] = true
				f.synonyms[s] = append(f.synonyms[s], i)
			}
		}
	}
	return f
}

func (f *finder) label(name string) []int {
	if at := f.exact[name]; len(at) > 0 {
		return at
	}
	if at := f.folded[fold(name)]; len(at) > 0 {
		return at
	}
	return f.synonyms[fold(name)]
}

func fold(s string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return r == ' ' || r == '_' || r == '-' || r == '\t' || r == '\r'
	}), " ")
}
