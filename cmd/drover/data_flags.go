package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/droverhq/drover/cloud/dataset"
)

// dataFlags say how labelled pictures are found.
type dataFlags struct {
	fileColumn, labelColumn string
	skipUnreadable          bool
	limit                   int
}

func (d *dataFlags) add(f *pflag.FlagSet) {
	f.StringVar(&d.fileColumn, "file-column", "", "column of a table that names the picture (default file)")
	f.StringVar(&d.labelColumn, "label-column", "", "column of a table that holds the label or class index (default label)")
	f.BoolVar(&d.skipUnreadable, "skip-unreadable", false, "leave out pictures that cannot be read, and say how many")
	f.IntVar(&d.limit, "limit", 0, "take only so many pictures, spread over the set")
}

// named puts a path in front of an error that does not name it.
func named(path string, err error) error {
	if err == nil || strings.Contains(err.Error(), path) {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

// open opens a folder with a folder per class, a table, or an IDX file. A
// folder may hold a table too: column flags choose it, otherwise folders of
// classes go first.
func (d *dataFlags) open(a *app, path string) (*dataset.Set, error) {
	if d.limit < 0 {
		return nil, usage("", "--limit %d is below 0", d.limit)
	}
	o := dataset.CSVOptions{FileColumn: d.fileColumn, LabelColumn: d.labelColumn}
	o.SkipUnreadable = d.skipUnreadable
	set, err := d.choose(a, path, o)
	if err != nil {
		return nil, err
	}
	if n := len(set.Skipped); n > 0 {
		a.note("%d unreadable pictures are left out, the first is %s: %v", n, set.Skipped[0].ID, set.Skipped[0].Err)
	}
	if d.limit > 0 && d.limit < set.Len() {
		some := make([]int, d.limit)
		for i := range some {
			some[i] = i * set.Len() / d.limit
		}
		set = set.Subset(set.Name, some)
	}
	return set, nil
}

func (d *dataFlags) choose(a *app, path string, o dataset.CSVOptions) (*dataset.Set, error) {
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return dataset.OpenAny(path, o)
	}
	table, several := tableIn(path)
	columns := d.fileColumn != "" || d.labelColumn != ""
	if columns {
		if table == "" {
			return nil, usage("name the table itself", "--file-column and --label-column belong to a table, and %s holds %s", path, several)
		}
		return dataset.OpenAny(table, o)
	}
	if part, err := idxIn(path); part != "" || err != nil {
		if err != nil {
			return nil, err
		}
		return dataset.OpenAny(part, o)
	}
	set, err := dataset.OpenAny(path, o)
	switch {
	case table == "":
	case err == nil:
		a.note("%s holds %s too; its folders are taken as classes. Name the table, or its columns, to take that instead", path, filepath.Base(table))
	case errors.Is(err, dataset.ErrLayout):
		a.note("%s holds no folders of classes; taking its table %s", path, filepath.Base(table))
		return dataset.OpenAny(table, o)
	}
	return set, err
}

// tableIn finds the table of a folder: labels.csv, or the only .csv. Otherwise
// it says in words how many there are.
func tableIn(dir string) (path, instead string) {
	if p := filepath.Join(dir, "labels.csv"); regular(p) {
		return p, ""
	}
	all, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.csv"))
	switch {
	case err != nil || len(all) == 0:
		return "", "none"
	case len(all) == 1:
		return all[0], ""
	}
	return "", fmt.Sprintf("%d: %s, …", len(all), filepath.Base(all[0]))
}

// idxIn finds the pictures of a folder in the manner of MNIST.
func idxIn(dir string) (string, error) {
	all, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*-images-idx3-ubyte*"))
	if err != nil || len(all) == 0 {
		return "", nil
	}
	if len(all) > 1 {
		return "", usage("name one of them: "+strings.Join(all, ", "), "%s holds %d IDX files of pictures", dir, len(all))
	}
	return all[0], nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(s)
}

func regular(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
