package dataset

import (
	"bufio"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/droverhq/drover/camera"
)

// ExportOptions choose what is exported; the zero value is all.
type ExportOptions struct {
	Every    int  // every n-th sample of the set; 0 means 1
	PerClass int  // at most so many of a class; 0 means all
	Flat     bool // all in one folder, in the order of the set, so that a replay mixes the classes
}

// Export writes samples as PNG files into a new folder: a folder per class, or
// one folder with Flat. labels.csv beside them lists file, label (index) and
// name. dir must not exist or be empty; it appears at once, complete. The number
// of pictures written is returned.
func (s *Set) Export(ctx context.Context, dir string, o ExportOptions) (n int, err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return 0, fmt.Errorf("dataset: export to %s: the folder is not empty; name a new one", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("dataset: export: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return 0, fmt.Errorf("dataset: export: %w", err)
	}
	folders := map[string]string{}
	for _, c := range s.Classes {
		if other, twice := folders[fileName(c)]; twice && !o.Flat {
			return 0, fmt.Errorf("dataset: export to %s: classes %q and %q would share the folder %q", dir, other, c, fileName(c))
		}
		folders[fileName(c)] = c
	}
	part, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+".part-*")
	if err != nil {
		return 0, fmt.Errorf("dataset: export: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(part)) }()
	if n, err = s.export(ctx, part, o); err != nil {
		return 0, fmt.Errorf("dataset: export to %s: %w", dir, err)
	}
	if err := errors.Join(os.Chmod(part, 0o755), ignoreMissing(os.Remove(dir)), os.Rename(part, dir)); err != nil {
		return 0, fmt.Errorf("dataset: export: %w", err)
	}
	return n, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (s *Set) export(ctx context.Context, dir string, o ExportOptions) (n int, err error) {
	table, err := os.Create(filepath.Join(dir, "labels.csv"))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, table.Close()) }()
	rows := csv.NewWriter(table)
	if err := rows.Write([]string{"file", "label", "name"}); err != nil {
		return 0, err
	}
	counts := make([]int, len(s.Classes))
	for i := 0; i < len(s.samples); i += max(o.Every, 1) {
		x := s.samples[i]
		if o.PerClass > 0 && counts[x.Class] == o.PerClass {
			continue
		}
		counts[x.Class]++
		name := fmt.Sprintf("%06d-%s.png", i, fileName(s.Label(x)))
		if !o.Flat {
			name = fmt.Sprintf("%s/%06d.png", fileName(s.Label(x)), i)
		}
		f, err := x.Load(ctx)
		if err != nil {
			return 0, err
		}
		if err := writePNG(filepath.Join(dir, filepath.FromSlash(name)), f); err != nil {
			return 0, err
		}
		if err := rows.Write([]string{name, strconv.Itoa(x.Class), s.Label(x)}); err != nil {
			return 0, err
		}
		n++
	}
	rows.Flush()
	return n, rows.Error()
}

// fileName makes a class name fit for one component of a path.
func fileName(label string) string {
	name := strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, label)
	if strings.HasPrefix(name, ".") {
		name = "_" + name[1:] // hidden files are passed over when a set is opened
	}
	return name
}

func writePNG(path string, f *camera.Frame) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := bufio.NewWriter(out)
	enc := png.Encoder{CompressionLevel: png.BestSpeed}
	if err := enc.Encode(w, toImage(f)); err != nil {
		return err
	}
	return w.Flush()
}

// toImage shows a frame as a picture; gray shares the frame's memory.
func toImage(f *camera.Frame) image.Image {
	r := image.Rect(0, 0, f.Width, f.Height)
	if f.Format == camera.Gray8 {
		return &image.Gray{Pix: f.Data, Stride: f.Stride, Rect: r}
	}
	out := image.NewNRGBA(r)
	for y := range f.Height {
		src, dst := f.Data[y*f.Stride:], out.Pix[y*out.Stride:]
		for x := range f.Width {
			dst[4*x], dst[4*x+1], dst[4*x+2], dst[4*x+3] = src[3*x+2], src[3*x+1], src[3*x], 0xff
		}
	}
	return out
}
