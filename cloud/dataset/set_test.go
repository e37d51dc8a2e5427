package dataset

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/camera"
)

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// dot is a picture of one pixel.
func dot(t *testing.T, v uint8) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, 1, 1))
	img.SetGray(0, 0, color.Gray{v})
	return pngOf(t, img)
}

// tree writes a folder of files.
func tree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "set")
	for name, data := range files {
		write(t, filepath.Join(dir, name), data)
	}
	return dir
}

func ids(s *Set) []string {
	var out []string
	for i := range s.Len() {
		x := s.Sample(i)
		out = append(out, x.ID+"="+s.Label(x))
	}
	return out
}

func open[T any](s T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func refused(t *testing.T, err, kind error, says ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("got %v, wanted %v", err, kind)
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}

func digest(t *testing.T, s *Set) string {
	t.Helper()
	return open(s.Digest(t.Context()))(t)
}

func TestFolder(t *testing.T) {
	dir := tree(t, map[string][]byte{
		"10/b.png": dot(t, 1), "2/deep/er/c.PNG": dot(t, 2), "2/a.png": dot(t, 3),
		"2/notes.txt": []byte("x"), "2/.hidden.png": []byte("x"), ".git/x.png": []byte("x"), "labels.csv": []byte("x"),
	})
	if err := os.Symlink("2", filepath.Join(dir, "3")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(dir, "2", "loop")); err != nil {
		t.Fatal(err)
	}
	s := open(Open(dir))(t)
	want := []string{"2/a.png=2", "2/deep/er/c.PNG=2", "3/a.png=3", "3/deep/er/c.PNG=3", "10/b.png=10"}
	if d := cmp.Diff(want, ids(s)); d != "" || s.Name != "set" || s.Indexed {
		t.Errorf("%q %v: %s", s.Name, s.Indexed, d)
	}
	if d := cmp.Diff([]int{2, 2, 1}, s.Counts()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"2/a.png=2", "3/a.png=3", "10/b.png=10"}, ids(s.Limit(1))); d != "" {
		t.Error(d)
	}
	f := open(s.Sample(1).Load(t.Context()))(t)
	if f.Data[0] != 2 || f.Format != camera.Gray8 {
		t.Errorf("frame %+v", f)
	}
}

func TestFolderRefusals(t *testing.T) {
	_, err := Open(filepath.Join(t.TempDir(), "none"))
	refused(t, err, os.ErrNotExist, "none")
	_, err = Open(tree(t, map[string][]byte{"a.png": dot(t, 1)}))
	refused(t, err, ErrLayout, "one folder of pictures per class")
	_, err = Open(tree(t, map[string][]byte{"a.png": dot(t, 1), "list.csv": nil}))
	refused(t, err, ErrLayout, "did you mean", "list.csv?")
	_, err = Open(tree(t, map[string][]byte{"a/a.png": dot(t, 1), "b/readme": nil}))
	refused(t, err, ErrEmpty, `class "b"`, "remove the folder")

	dir := tree(t, map[string][]byte{"a/1.png": dot(t, 1), "a/2.png": []byte("no"), "b/3.webp": []byte("RIFF0000WEBPVP8 "), "b/4.png": dot(t, 4)})
	if err := syscall.Mkfifo(filepath.Join(dir, "b", "5.png"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	refused(t, err, ErrUnreadable, "a/2.png", "skip unreadable")
	s := open(OpenWith(dir, Options{SkipUnreadable: true, Name: "mine"}))(t)
	if d := cmp.Diff([]string{"a/1.png=a", "b/4.png=b"}, ids(s)); d != "" || len(s.Skipped) != 3 || s.Name != "mine" {
		t.Errorf("%v %v", d, s.Skipped)
	}
	refused(t, s.Skipped[1].Err, ErrUnreadable, "WebP")
	_, err = OpenWith(tree(t, map[string][]byte{"a/2.png": []byte("no")}), Options{SkipUnreadable: true})
	refused(t, err, ErrEmpty, "all 1 were skipped")
}

func TestCSV(t *testing.T) {
	dir := tree(t, map[string][]byte{
		"p/1.png": dot(t, 1), "p/a, \"b\".png": dot(t, 2),
		"names.csv":   []byte("\ufefflabel,path,who\r\nzebra,p/1.png,ann\r\n ant ,\"p/a, \"\"b\"\".png\",bob\r\n"),
		"indices.csv": []byte("file,label\np/1.png,3\n"),
		"mixed.csv":   []byte("file,label\np/1.png,3\n\"p/a, \"\"b\"\".png\",three\n"),
	})
	s := open(OpenCSVWith(filepath.Join(dir, "names.csv"), CSVOptions{FileColumn: "path", GroupColumn: "who"}))(t)
	if d := cmp.Diff([]string{"p/1.png=zebra", "p/a, \"b\".png=ant"}, ids(s)); d != "" || s.Indexed || s.Sample(1).Group != "bob" {
		t.Error(d, s.Indexed, s.Sample(1).Group)
	}
	if d := cmp.Diff([]string{"ant", "zebra"}, s.Classes); d != "" {
		t.Error(d)
	}
	s = open(OpenCSV(filepath.Join(dir, "indices.csv"), "", ""))(t)
	if !s.Indexed || len(s.Classes) != 4 || s.Sample(0).Class != 3 || s.Name != "set" {
		t.Errorf("%+v", s)
	}
	s = open(OpenCSV(filepath.Join(dir, "mixed.csv"), "file", "label"))(t)
	if d := cmp.Diff([]string{"3", "three"}, s.Classes); d != "" || s.Indexed {
		t.Error(d)
	}
	elsewhere := filepath.Join(t.TempDir(), "x.csv")
	write(t, elsewhere, []byte("file,label\n1.png,1\n"))
	if n := open(OpenCSVWith(elsewhere, CSVOptions{Root: filepath.Join(dir, "p")}))(t).Len(); n != 1 {
		t.Errorf("%d samples", n)
	}
}

func TestCSVRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		kind error
		says []string
	}{
		"empty":       {"", ErrLayout, []string{"empty"}},
		"no rows":     {"file,label\n", ErrEmpty, nil},
		"columns":     {"path,class\n1.png,0\n", ErrLayout, []string{`no column "file"`, `no column "label"`, "path, class"}},
		"short line":  {"file,label\n1.png\n", ErrLayout, []string{"line 2"}},
		"quotes":      {"file,label\n\"1.png,0\n", ErrLayout, nil},
		"missing":     {"file,label\n1.png,0\nnone.png,1\n", ErrUnreadable, []string{"none.png", "line 3", "no such file"}},
		"absolute":    {"file,label\n/etc/passwd,0\n", ErrLayout, []string{"line 2", "leads out"}},
		"outside":     {"file,label\n../x.png,0\n", ErrLayout, []string{"leads out"}},
		"no label":    {"file,label\n1.png, \n", ErrLayout, []string{"line 2", "label"}},
		"long label":  {"file,label\n1.png," + strings.Repeat("x", 257) + "\n", ErrLayout, []string{"257"}},
		"twice":       {"file,label\n1.png,0\n1.png,1\n", ErrLayout, []string{"line 3", "line 2 already"}},
		"large index": {"file,label\n1.png,16384\n", ErrTooLarge, []string{"label column"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, map[string][]byte{"1.png": dot(t, 1), "t.csv": []byte(c.text)})
			_, err := OpenCSV(filepath.Join(dir, "t.csv"), "", "")
			refused(t, err, c.kind, c.says...)
		})
	}
}

func idx(magic uint32, dims []uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magic)
	for _, d := range dims {
		b = binary.BigEndian.AppendUint32(b, d)
	}
	return append(b, data...)
}

func gz(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestIDX(t *testing.T) {
	pictures := idx(idxPictures, []uint32{3, 1, 2}, []byte{1, 2, 3, 4, 5, 6})
	labels := idx(idxLabels, []uint32{3}, []byte{1, 0, 1})
	dir := tree(t, map[string][]byte{"t10k-images-idx3-ubyte.gz": gz(t, pictures), "t10k-labels-idx1-ubyte": labels})
	s := open(OpenIDXDir(dir, "t10k", []string{"a", "b"}))(t)
	if d := cmp.Diff([]string{"t10k-00000=b", "t10k-00001=a", "t10k-00002=b"}, ids(s)); d != "" || s.Indexed {
		t.Error(d)
	}
	f := open(s.Sample(1).Load(t.Context()))(t)
	if f.Check() != nil || f.Width != 2 || f.Height != 1 || !bytes.Equal(f.Data, []byte{3, 4}) {
		t.Errorf("frame %+v", f)
	}
	f.Data[0] = 99 // the caller's own
	if again := open(s.Sample(1).Load(t.Context()))(t); again.Data[0] != 3 {
		t.Error("a frame shares the set's memory")
	}
	if s := open(OpenIDXDir(dir, "t10k", nil))(t); !s.Indexed || len(s.Classes) != 2 {
		t.Errorf("%+v", s)
	}
	_, err := OpenIDXDir(dir, "train", nil)
	refused(t, err, ErrLayout, "train-images-idx3-ubyte", "dataset-fashion-mnist")
	_, err = OpenIDXDir(dir, "t10k", []string{"a"})
	refused(t, err, ErrLayout, "label 1, but 1 class names")
	for name, c := range map[string]struct {
		pictures []byte
		kind     error
		says     string
	}{
		"cut":           {pictures[:len(pictures)-1], ErrLayout, "5 of 6"},
		"more":          {append(slices.Clone(pictures), 0), ErrLayout, "more than the 6"},
		"cut header":    {pictures[:9], ErrLayout, "header"},
		"labels":        {labels, ErrLayout, "magic number 0x00000801, wanted 0x00000803"},
		"no side":       {idx(idxPictures, []uint32{1, 0, 1}, nil), ErrLayout, "0 pixels a side"},
		"many":          {idx(idxPictures, []uint32{1 << 31, 1, 1}, nil), ErrTooLarge, "elements"},
		"much":          {idx(idxPictures, []uint32{1 << 21, 1 << 13, 1}, nil), ErrTooLarge, "bytes"},
		"announces":     {idx(idxPictures, []uint32{3, 8192, 8192}, []byte{1}), ErrLayout, "1 of"},
		"none":          {idx(idxPictures, []uint32{0, 1, 1}, nil), ErrLayout, "0 pictures in"},
		"other number":  {idx(idxPictures, []uint32{2, 1, 1}, []byte{1, 2}), ErrLayout, "2 pictures in"},
		"broken gzip":   {[]byte("\x1f\x8b\x08broken"), ErrLayout, ""},
		"gzip that end": {gz(t, pictures)[:20], ErrLayout, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, map[string][]byte{"i": c.pictures, "l": labels})
			_, err := OpenIDX("x", filepath.Join(dir, "i"), filepath.Join(dir, "l"), nil)
			refused(t, err, c.kind, c.says)
		})
	}
}

func FuzzIDX(f *testing.F) {
	f.Add(idx(idxPictures, []uint32{3, 1, 2}, []byte{1, 2, 3, 4, 5, 6}))
	f.Add(idx(idxPictures, []uint32{3, 8192, 8192}, []byte{1}))
	f.Fuzz(func(t *testing.T, b []byte) {
		dims, data, err := readIDX(bytes.NewReader(b), idxPictures, 3)
		if err == nil && len(data) != dims[0]*dims[1]*dims[2] {
			t.Fatalf("%v with %d bytes", dims, len(data))
		}
	})
}

func FuzzTable(f *testing.F) {
	f.Add([]byte("file,label\n1.png,0\n\"a b\",2\n"))
	f.Add([]byte("\ufefffile,label\r\nx,cat\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rows, err := readTable(bytes.NewReader(b), CSVOptions{FileColumn: "file", LabelColumn: "label"})
		if err != nil {
			return
		}
		classes, indexed, err := classesOf(rows)
		if err != nil {
			return
		}
		for _, r := range rows {
			if !filepath.IsLocal(r.file) || indexed && r.index >= len(classes) || !indexed && !slices.Contains(classes, r.label) {
				t.Fatalf("row %+v in classes %q", r, classes)
			}
		}
	})
}

func TestDigestNamesTheContent(t *testing.T) {
	a := tree(t, map[string][]byte{"x/1.png": dot(t, 1), "y/2.png": dot(t, 2)})
	moved := tree(t, map[string][]byte{"x/other.png": dot(t, 1), "y/a/b.png": dot(t, 2)})
	base := digest(t, open(Open(a))(t))
	if len(base) != 64 {
		t.Errorf("digest %q", base)
	}
	if d := digest(t, open(Open(moved))(t)); d != base {
		t.Error("names and places change the digest")
	}
	for name, files := range map[string]map[string][]byte{
		"another label":   {"x/1.png": dot(t, 1), "z/2.png": dot(t, 2)},
		"another picture": {"x/1.png": dot(t, 1), "y/2.png": dot(t, 3)},
		"labels swapped":  {"y/1.png": dot(t, 1), "x/2.png": dot(t, 2)},
		"a copy more":     {"x/1.png": dot(t, 1), "x/3.png": dot(t, 1), "y/2.png": dot(t, 2)},
	} {
		if digest(t, open(Open(tree(t, files)))(t)) == base {
			t.Errorf("%s leaves the digest as it is", name)
		}
	}
}

// synthetic is a set of n samples a class without pictures.
func synthetic(classes, n int, group func(class, i int) string) *Set {
	s := &Set{Name: "s"}
	for c := range classes {
		s.Classes = append(s.Classes, fmt.Sprint(c))
		for i := range n {
			s.samples = append(s.samples, Sample{ID: fmt.Sprintf("%d/%03d", c, i), Class: c, Group: group(c, i)})
		}
	}
	return s
}

func TestSplitIsStratifiedDeterministicAndTotal(t *testing.T) {
	s := synthetic(3, 100, func(int, int) string { return "" })
	split := func(s *Set, seed uint64) [3][]string {
		train, val, test, err := s.Split(0.7, 0.2, seed)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range []*Set{train, val, test} {
			if d := cmp.Diff(slices.Repeat([]int{[]int{70, 20, 10}[i]}, 3), part.Counts()); d != "" {
				t.Errorf("part %d: %s", i, d)
			}
		}
		out := [3][]string{ids(train), ids(val), ids(test)}
		for i := range out {
			slices.Sort(out[i])
		}
		return out
	}
	first := split(s, 1)
	all := slices.Concat(first[0], first[1], first[2])
	slices.Sort(all)
	if d := cmp.Diff(ids(s), all); d != "" {
		t.Error("the parts are not the whole")
	}
	reversed := make([]int, s.Len())
	for i := range reversed {
		reversed[i] = s.Len() - 1 - i
	}
	if d := cmp.Diff(first, split(s.Subset("r", reversed), 1)); d != "" {
		t.Error("the order of the set matters")
	}
	if cmp.Equal(first, split(s, 2)) {
		t.Error("the seed does not matter")
	}
	for _, bad := range [][2]float64{{-0.1, 0.5}, {0.8, 0.3}} {
		if _, _, _, err := s.Split(bad[0], bad[1], 1); err == nil {
			t.Errorf("fractions %v are accepted", bad)
		}
	}
	train, val, test, err := s.Split(1, 0, 1)
	if err != nil || train.Len() != 300 || val.Len() != 0 || test.Len() != 0 {
		t.Errorf("all to train: %d %d %d %v", train.Len(), val.Len(), test.Len(), err)
	}
}

func TestSplitKeepsGroupsTogether(t *testing.T) {
	// Every student shows each of four digits, three times.
	s := synthetic(4, 60, func(_, i int) string { return fmt.Sprintf("student %d", i/3) })
	train, val, test, err := s.Split(0.6, 0.2, 7)
	if err != nil {
		t.Fatal(err)
	}
	where := map[string]int{}
	for part, set := range []*Set{train, val, test} {
		if set.Len() == 0 {
			t.Errorf("part %d is empty", part)
		}
		for i := range set.Len() {
			g := set.Sample(i).Group
			if was, seen := where[g]; seen && was != part {
				t.Fatalf("%s is in parts %d and %d", g, was, part)
			}
			where[g] = part
		}
	}
}

func TestGroupByContentFindsCopies(t *testing.T) {
	files := map[string][]byte{}
	for i := range 40 {
		files[fmt.Sprintf("a/%02d.png", i)] = dot(t, uint8(i%20))
	}
	s := open(open(Open(tree(t, files)))(t).GroupByContent(t.Context()))(t)
	train, _, test, err := s.Split(0.5, 0, 3)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[byte]bool{}
	for i := range train.Len() {
		seen[open(train.Sample(i).Load(t.Context()))(t).Data[0]] = true
	}
	for i := range test.Len() {
		if v := open(test.Sample(i).Load(t.Context()))(t).Data[0]; seen[v] {
			t.Fatalf("picture %d leaks into the test part", v)
		}
	}
	if train.Len() != 20 || test.Len() != 20 {
		t.Errorf("%d and %d", train.Len(), test.Len())
	}
}

func TestExport(t *testing.T) {
	pictures := idx(idxPictures, []uint32{4, 1, 2}, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	labels := idx(idxLabels, []uint32{4}, []byte{0, 1, 0, 0})
	src := tree(t, map[string][]byte{"i": pictures, "l": labels})
	s := open(OpenIDX("x", filepath.Join(src, "i"), filepath.Join(src, "l"), []string{"T-shirt/top", ".dot"}))(t)
	dir := filepath.Join(t.TempDir(), "new", "out")
	if n := open(s.Export(t.Context(), dir, ExportOptions{PerClass: 2}))(t); n != 3 {
		t.Errorf("%d pictures", n)
	}
	back := open(Open(dir))(t)
	if d := cmp.Diff([]string{"T-shirt_top/000000.png=T-shirt_top", "T-shirt_top/000002.png=T-shirt_top", "_dot/000001.png=_dot"}, ids(back)); d != "" {
		t.Error(d)
	}
	if f := open(back.Sample(1).Load(t.Context()))(t); !bytes.Equal(f.Data, []byte{5, 6}) || f.Format != camera.Gray8 {
		t.Errorf("%+v", f)
	}
	table := open(OpenCSV(filepath.Join(dir, "labels.csv"), "file", "label"))(t)
	if table.Len() != 3 || !table.Indexed || table.Sample(1).Class != 1 {
		t.Errorf("%+v", table)
	}
	_, err := s.Export(t.Context(), dir, ExportOptions{})
	if err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("got %v", err)
	}
	flat := filepath.Join(t.TempDir(), "flat")
	if n := open(s.Export(t.Context(), flat, ExportOptions{Flat: true, Every: 2}))(t); n != 2 {
		t.Errorf("%d pictures", n)
	}
	if d := cmp.Diff([]string{"000000-T-shirt_top.png=T-shirt/top", "000002-T-shirt_top.png=T-shirt/top"},
		ids(open(OpenCSV(filepath.Join(flat, "labels.csv"), "file", "name"))(t))); d != "" {
		t.Error(d)
	}
	if entries := open(os.ReadDir(filepath.Dir(flat)))(t); len(entries) != 1 {
		t.Errorf("a partial folder is left: %v", entries)
	}
	clash := &Set{Name: "c", Classes: []string{"a/b", "a:b"}}
	if _, err := clash.Export(t.Context(), filepath.Join(t.TempDir(), "x"), ExportOptions{}); err == nil || !strings.Contains(err.Error(), "share the folder") {
		t.Errorf("got %v", err)
	}
	colour := &Set{Name: "c", Classes: []string{"a"}, samples: []Sample{{ID: "1", src: file(filepath.Join(src, "c.png"))}}}
	write(t, filepath.Join(src, "c.png"), pngOf(t, two(image.NewNRGBA(image.Rect(0, 0, 2, 1)), color.NRGBA{1, 2, 3, 255}, color.NRGBA{4, 5, 6, 255})))
	out := filepath.Join(t.TempDir(), "o")
	open(colour.Export(t.Context(), out, ExportOptions{}))(t)
	if f := open(open(Open(out))(t).Sample(0).Load(t.Context()))(t); !bytes.Equal(f.Data, []byte{3, 2, 1, 6, 5, 4}) {
		t.Errorf("colours: %v", f.Data)
	}
}
