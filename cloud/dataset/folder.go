package dataset

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Open reads a folder with one folder of pictures per class. See OpenWith.
func Open(dir string) (*Set, error) { return OpenWith(dir, Options{}) }

// OpenWith reads a folder with one folder of pictures per class; these may have
// folders of their own. The classes are sorted by name, by value if all are
// numbers. Hidden files and files that are no pictures by name are passed over.
func OpenWith(dir string, o Options) (*Set, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("dataset: open: %w", err)
	}
	b := newBuilder(dir, o)
	for _, e := range entries {
		if st, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && st.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			b.set.Classes = append(b.set.Classes, e.Name())
		}
	}
	if len(b.set.Classes) == 0 {
		hint := "or the name of a CSV file"
		if tables, _ := filepath.Glob(filepath.Join(dir, "*.csv")); len(tables) > 0 { // a bad pattern only costs the better hint
			hint = "or did you mean " + tables[0] + "?"
		}
		return nil, fmt.Errorf("dataset: open %s: %w: it has no folders; wanted one folder of pictures per class, %s", dir, ErrLayout, hint)
	}
	sortClasses(b.set.Classes)
	for class, name := range b.set.Classes {
		before := len(b.set.samples) + len(b.set.Skipped)
		if err := b.walk(dir, name, class); err != nil {
			return nil, err
		}
		if len(b.set.samples)+len(b.set.Skipped) == before {
			return nil, fmt.Errorf("dataset: open %s: class %q: %w (png, jpg, bmp, gif); remove the folder if it is no class", dir, name, ErrEmpty)
		}
	}
	return b.finish()
}

func newBuilder(path string, o Options) *builder {
	if o.Name == "" {
		o.Name = filepath.Base(filepath.Clean(path))
		if abs, err := filepath.Abs(path); err == nil {
			o.Name = filepath.Base(abs)
		}
	}
	return &builder{opts: o, set: &Set{Name: o.Name}}
}

// walk adds the pictures below dir/name. The class folder may be a symbolic
// link; links to folders further down are not followed, so there are no loops.
func (b *builder) walk(dir, name string, class int) error {
	root, err := filepath.EvalSymlinks(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("dataset: open: %w", err)
	}
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("dataset: open: %w", err)
		}
		if path != root && strings.HasPrefix(e.Name(), ".") {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if e.IsDir() || !pictureName(e.Name()) {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return fmt.Errorf("dataset: open: %w", err)
		}
		f := file(path)
		return b.add(Sample{ID: filepath.ToSlash(filepath.Join(name, rel)), Class: class, src: f}, f.probe())
	})
}

// pictureName tells pictures from other files by name. Formats that drover does
// not read are pictures too: they must not vanish without a word.
func pictureName(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif",
		".webp", ".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm":
		return true
	}
	return false
}

func sortClasses(names []string) {
	for _, n := range names {
		if _, err := strconv.ParseUint(n, 10, 31); err != nil {
			slices.Sort(names)
			return
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		if errors.Join(errX, errY) != nil {
			panic("internal error: a number was checked and is none")
		}
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
	})
}
