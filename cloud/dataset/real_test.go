package dataset

import (
	"os"
	"path/filepath"
	"testing"
)

// shared is the folder of test pictures beside the repository.
func shared(t *testing.T, name string) string {
	t.Helper()
	p := filepath.Join("..", "..", "..", "shared", "data", "images", name)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("no test pictures: %v", err)
	}
	return p
}

func TestRealSets(t *testing.T) {
	imagenet, err := OpenCSV(filepath.Join(shared(t, "imagenet-sample"), "labels.csv"), "file", "index1001")
	if err != nil {
		t.Fatal(err)
	}
	cifar, err := Open(shared(t, "cifar10-test"))
	if err != nil {
		t.Fatal(err)
	}
	byTable, err := OpenCSV(filepath.Join(shared(t, "cifar10-test"), "labels.csv"), "", "name")
	if err != nil {
		t.Fatal(err)
	}
	digits, err := Open(shared(t, "sign-digits"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set        *Set
		n, classes int
		indexed    bool
	}{{imagenet, 250, 998, true}, {cifar, 1000, 10, false}, {byTable, 1000, 10, false}, {digits, 600, 6, false}} {
		if c.set.Len() != c.n || len(c.set.Classes) != c.classes || c.set.Indexed != c.indexed {
			t.Errorf("%s: %d samples, %d classes, indexed %v", c.set.Name, c.set.Len(), len(c.set.Classes), c.set.Indexed)
		}
		for i := 0; i < c.set.Len(); i += 7 {
			f, err := c.set.Sample(i).Load(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Check(); err != nil {
				t.Fatal(err)
			}
		}
	}
	a, errA := cifar.Digest(t.Context())
	b, errB := byTable.Digest(t.Context())
	if errA != nil || errB != nil || a != b {
		t.Errorf("the same pictures by folder and by table are %s and %s (%v, %v)", a, b, errA, errB)
	}
}

func TestFashionMNIST(t *testing.T) {
	dir := "/usr/share/datasets/fashion-mnist"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no Debian package dataset-fashion-mnist")
	}
	for part, n := range map[string]int{"train": 60000, "t10k": 10000} {
		s, err := OpenIDXDir(dir, part, FashionClasses())
		if err != nil {
			t.Fatal(err)
		}
		if s.Len() != n {
			t.Errorf("%s has %d samples, wanted %d", part, s.Len(), n)
		}
		for class, count := range s.Counts() {
			if count != n/10 {
				t.Errorf("%s: class %d has %d samples", part, class, count)
			}
		}
	}
}
