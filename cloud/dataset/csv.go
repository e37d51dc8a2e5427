package dataset

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/droverhq/drover/infer"
)

// maxCSVBytes bounds a table of files and labels.
const maxCSVBytes = 1 << 30

// CSVOptions say what the columns of a table are called.
type CSVOptions struct {
	Options
	FileColumn  string // "" means "file"
	LabelColumn string // "" means "label"
	GroupColumn string // "" means none
	Root        string // the folder paths are relative to; "" means the table's own
}

// OpenCSV reads a table with a header. See OpenCSVWith.
func OpenCSV(path, fileColumn, labelColumn string) (*Set, error) {
	return OpenCSVWith(path, CSVOptions{FileColumn: fileColumn, LabelColumn: labelColumn})
}

// OpenCSVWith reads a table with a header: one column has the files, relative to
// the table, another the labels. If all labels are numbers ≥ 0 they are class
// indices and the set is Indexed; otherwise they are class names, which are
// sorted.
func OpenCSVWith(path string, o CSVOptions) (*Set, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("dataset: open: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	if o.FileColumn == "" {
		o.FileColumn = "file"
	}
	if o.LabelColumn == "" {
		o.LabelColumn = "label"
	}
	if o.Root == "" {
		o.Root = filepath.Dir(path)
	}
	rows, err := readTable(io.LimitReader(f, maxCSVBytes), o)
	if err != nil {
		return nil, fmt.Errorf("dataset: open %s: %w", path, err)
	}
	if o.Name == "" {
		o.Name = newBuilder(filepath.Dir(path), o.Options).set.Name
	}
	b := newBuilder(path, o.Options)
	b.set.Classes, b.set.Indexed, err = classesOf(rows)
	if err != nil {
		return nil, fmt.Errorf("dataset: open %s: %w", path, err)
	}
	index := make(map[string]int, len(b.set.Classes))
	for i, c := range b.set.Classes {
		index[c] = i
	}
	seen := make(map[string]int, len(rows))
	for _, r := range rows {
		if first, twice := seen[r.file]; twice {
			return nil, fmt.Errorf("dataset: open %s: %w: line %d: %s stands in line %d already", path, ErrLayout, r.line, r.file, first)
		}
		seen[r.file] = r.line
		class := index[r.label]
		if b.set.Indexed {
			class = r.index
		}
		pic := file(filepath.Join(o.Root, filepath.FromSlash(r.file)))
		probe := pic.probe()
		if probe != nil {
			probe = fmt.Errorf("line %d of %s: %w", r.line, filepath.Base(path), probe)
		}
		if err := b.add(Sample{ID: r.file, Class: class, Group: r.group, src: pic}, probe); err != nil {
			return nil, err
		}
	}
	return b.finish()
}

// tableRow is one line of a table, not yet checked against the disk.
type tableRow struct {
	line               int
	file, label, group string
	index              int // of a numeric label, else -1
}

func readTable(src io.Reader, o CSVOptions) ([]tableRow, error) {
	in := bufio.NewReader(src)
	if bom, err := in.Peek(3); err == nil && string(bom) == "\ufeff" {
		_, _ = in.Discard(3) // just peeked
	}
	r := csv.NewReader(in)
	r.ReuseRecord = true
	header, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: the table is empty; wanted a header line", ErrLayout)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrLayout, err)
	}
	header = slices.Clone(header)
	column := func(name string) (int, error) {
		for i, h := range header {
			if strings.TrimSpace(h) == name {
				return i, nil
			}
		}
		return 0, fmt.Errorf("%w: no column %q; its columns are: %s", ErrLayout, name, some(header))
	}
	fileAt, errFile := column(o.FileColumn)
	labelAt, errLabel := column(o.LabelColumn)
	groupAt, errGroup := -1, error(nil)
	if o.GroupColumn != "" {
		groupAt, errGroup = column(o.GroupColumn)
	}
	if err := errors.Join(errFile, errLabel, errGroup); err != nil {
		return nil, err
	}
	var rows []tableRow
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrLayout, err)
		}
		if len(rows) == MaxSamples {
			return nil, fmt.Errorf("%w: more than %d lines", ErrTooLarge, MaxSamples)
		}
		row := tableRow{file: strings.Clone(rec[fileAt]), label: strings.Clone(strings.TrimSpace(rec[labelAt]))}
		row.line, _ = r.FieldPos(fileAt)
		if groupAt >= 0 {
			row.group = strings.Clone(rec[groupAt])
		}
		if err := row.check(); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
}

func (r *tableRow) check() error {
	if !filepath.IsLocal(filepath.FromSlash(r.file)) {
		return fmt.Errorf("%w: line %d: file %q leads out of the folder; wanted a relative path below it", ErrLayout, r.line, r.file)
	}
	if r.label == "" || len(r.label) > infer.MaxLabelBytes {
		return fmt.Errorf("%w: line %d: the label has %d bytes, wanted 1 to %d", ErrLayout, r.line, len(r.label), infer.MaxLabelBytes)
	}
	r.index = -1
	if n, err := strconv.ParseUint(r.label, 10, 31); err == nil {
		r.index = int(n)
	}
	return nil
}

// classesOf decides whether labels are indices or names.
func classesOf(rows []tableRow) (classes []string, indexed bool, err error) {
	most, numeric := -1, 0
	names := map[string]bool{}
	for _, r := range rows {
		names[r.label] = true
		most = max(most, r.index)
		if r.index >= 0 {
			numeric++
		}
	}
	if numeric < len(rows) {
		for n := range names {
			classes = append(classes, n)
		}
		slices.Sort(classes)
		return classes, false, nil
	}
	if most >= infer.MaxClasses {
		return nil, false, fmt.Errorf("%w: class index %d, allowed below %d; is this the label column?", ErrTooLarge, most, infer.MaxClasses)
	}
	for i := range most + 1 {
		classes = append(classes, strconv.Itoa(i))
	}
	return classes, true, nil
}
