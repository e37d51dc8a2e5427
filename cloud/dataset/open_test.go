package dataset

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOpenAny(t *testing.T) {
	dir := tree(t, map[string][]byte{
		"a/1.png":                    dot(t, 1),
		"t.CSV":                      []byte("file,class\na/1.png,x\n"),
		"t10k-images-idx3-ubyte.gz":  gz(t, idx(idxPictures, []uint32{1, 1, 1}, []byte{1})),
		"t10k-labels-idx1-ubyte.gz":  gz(t, idx(idxLabels, []uint32{1}, []byte{4})),
		"other-images-idx3-ubyte.gz": gz(t, idx(idxPictures, []uint32{1, 1, 1}, []byte{1})),
		"x.txt":                      []byte("x"),
	})
	for name, label := range map[string]string{"": "a", "t.CSV": "x", "t10k-images-idx3-ubyte.gz": "4"} {
		s := open(OpenAny(filepath.Join(dir, name), CSVOptions{LabelColumn: "class"}))(t)
		if s.Len() != 1 || s.Label(s.Sample(0)) != label {
			t.Errorf("%q: %v", name, ids(s))
		}
	}
	_, err := OpenAny(filepath.Join(dir, "x.txt"), CSVOptions{})
	refused(t, err, ErrLayout, "wanted a folder")
	_, err = OpenAny(filepath.Join(dir, "other-images-idx3-ubyte.gz"), CSVOptions{})
	refused(t, err, ErrLayout, "other-labels-idx1-ubyte")
	_, err = OpenAny(filepath.Join(dir, "none"), CSVOptions{})
	refused(t, err, os.ErrNotExist, "none")
}
