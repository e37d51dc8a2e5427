package dataset

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// OpenAny opens what an operator names, whichever it is: a folder with a folder
// per class; a table (.csv), with the columns of o; or the pictures' file of an
// IDX pair (…-images-idx3-ubyte, with or without .gz), whose labels lie beside it
// and are class indices.
func OpenAny(path string, o CSVOptions) (*Set, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("dataset: open: %w", err)
	}
	base := filepath.Base(path)
	switch part, _, idx := strings.Cut(base, "-images-idx3-ubyte"); {
	case st.IsDir():
		return OpenWith(path, o.Options)
	case idx:
		return OpenIDXDir(filepath.Dir(path), part, nil)
	case strings.EqualFold(filepath.Ext(base), ".csv"):
		return OpenCSVWith(path, o)
	}
	return nil, fmt.Errorf("dataset: open %s: %w: wanted a folder with one folder of pictures per class, a .csv file, or a …-images-idx3-ubyte[.gz] file", path, ErrLayout)
}
