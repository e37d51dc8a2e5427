// Package dataset reads labelled pictures.
//
// A Set is an ordered list of samples, each a picture with a class. It comes
// from a folder per class (Open), from a table of files and labels (OpenCSV), or
// from the IDX files that MNIST made usual (OpenIDX); OpenAny tells them apart.
// Opening looks at the head of every picture only; Sample.Load decodes it.
//
// A set is named by its content: Digest depends on the bytes of the pictures and
// their labels, not on file names, order or place. It is what a model's lineage
// records.
//
// Pictures are decoded in Go: PNG, JPEG (with its EXIF orientation), BMP and
// still GIF. What comes out is a camera.Frame as a camera would give it: BGR8,
// or Gray8 for gray pictures; 16-bit samples are cut to 8; transparency is
// ignored, as OpenCV does.
package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

// Limits of a set.
const (
	MaxSamples   = 4_000_000
	MaxFileBytes = 64 << 20 // of one picture
	maxReported  = 10       // names in one error
)

// The kinds of refusal.
var (
	ErrEmpty      = errors.New("no pictures")
	ErrUnreadable = errors.New("unreadable picture")
	ErrLayout     = errors.New("not a labelled set")
	ErrTooLarge   = errors.New("too large")
)

// Sample is one labelled picture. It is safe for concurrent use.
type Sample struct {
	ID    string // unique in its set: the path below the set's folder, or part and index
	Class int    // index into the set's Classes
	Group string // samples of one group never part in Split; "" is a group of its own
	src   source
}

// source is where a sample's picture comes from.
type source interface {
	load(ctx context.Context) (*camera.Frame, error)
	digest(ctx context.Context) ([sha256.Size]byte, error) // of the content, whatever its name
}

// Load decodes the picture. The frame belongs to the caller. Errors wrap
// ErrUnreadable, or are the context's.
func (s Sample) Load(ctx context.Context) (*camera.Frame, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := s.src.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("dataset: picture %s: %w", s.ID, err)
	}
	return f, nil
}

// Skip is a picture that was left out, and why.
type Skip struct {
	ID  string
	Err error
}

// Set is a labelled set. It does not change and is safe for concurrent use.
type Set struct {
	Name    string
	Classes []string
	// Indexed says that the classes are numbers: the labels were integers, and
	// class i means output i of a model whatever it is called.
	Indexed bool
	// Skipped are the pictures that Options.SkipUnreadable left out.
	Skipped []Skip

	samples []Sample
}

// Len is the number of samples.
func (s *Set) Len() int { return len(s.samples) }

// Sample returns the i-th, 0 ≤ i < Len.
func (s *Set) Sample(i int) Sample { return s.samples[i] }

// Label is the class name of a sample of this set.
func (s *Set) Label(x Sample) string { return s.Classes[x.Class] }

// Counts is the number of samples of each class.
func (s *Set) Counts() []int {
	n := make([]int, len(s.Classes))
	for _, x := range s.samples {
		n[x.Class]++
	}
	return n
}

// Subset is the samples of the given indices, in that order, with the same
// classes.
func (s *Set) Subset(name string, indices []int) *Set {
	out := s.with(name, make([]Sample, 0, len(indices)))
	for _, i := range indices {
		out.samples = append(out.samples, s.samples[i])
	}
	return out
}

// Limit is at most perClass samples of each class, the first ones.
func (s *Set) Limit(perClass int) *Set {
	out := s.with(s.Name, nil)
	n := make([]int, len(s.Classes))
	for _, x := range s.samples {
		if n[x.Class] < perClass {
			n[x.Class]++
			out.samples = append(out.samples, x)
		}
	}
	return out
}

func (s *Set) with(name string, samples []Sample) *Set {
	return &Set{Name: name, Classes: s.Classes, Indexed: s.Indexed, samples: samples}
}

// Digest names the set by its content: SHA-256 (lower-case hex) over the sorted
// pairs of picture digest and label. It reads every picture's bytes.
func (s *Set) Digest(ctx context.Context) (string, error) {
	lines := make([]string, 0, len(s.samples))
	for _, x := range s.samples {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		d, err := x.src.digest(ctx)
		if err != nil {
			return "", fmt.Errorf("dataset: digest of %s: %w", x.ID, err)
		}
		lines = append(lines, hex.EncodeToString(d[:])+" "+s.Classes[x.Class]+"\n")
	}
	slices.Sort(lines)
	h := sha256.New()
	h.Write([]byte("drover dataset 1\n"))
	for _, l := range lines {
		h.Write([]byte(l))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// GroupByContent puts samples with equal bytes into one group, those that have
// none yet, so that a split does not leak copies of a training picture into the
// test part. It reads every picture's bytes.
func (s *Set) GroupByContent(ctx context.Context) (*Set, error) {
	out := s.with(s.Name, slices.Clone(s.samples))
	for i := range out.samples {
		x := &out.samples[i]
		if x.Group != "" {
			continue
		}
		d, err := x.src.digest(ctx)
		if err != nil {
			return nil, fmt.Errorf("dataset: digest of %s: %w", x.ID, err)
		}
		x.Group = "sha256:" + hex.EncodeToString(d[:])
	}
	return out, nil
}

// Options say how a set is opened; the zero value is strict.
type Options struct {
	// SkipUnreadable leaves out pictures that cannot be read, and lists them in
	// Set.Skipped, instead of failing at the first one.
	SkipUnreadable bool
	// Name of the set; "" means the name of the folder.
	Name string
}

// builder collects samples and applies the limits and the options.
type builder struct {
	opts Options
	set  *Set
}

// add takes a sample, or skips it, or fails. probe errs if the picture cannot be read.
func (b *builder) add(x Sample, probe error) error {
	switch {
	case probe != nil && b.opts.SkipUnreadable:
		b.set.Skipped = append(b.set.Skipped, Skip{x.ID, probe})
		return nil
	case probe != nil:
		return fmt.Errorf("dataset: picture %s: %w; repair or remove it, or skip unreadable pictures", x.ID, probe)
	case len(b.set.samples) == MaxSamples:
		return fmt.Errorf("dataset: %s: %w: more than %d pictures", b.set.Name, ErrTooLarge, MaxSamples)
	}
	b.set.samples = append(b.set.samples, x)
	return nil
}

func (b *builder) finish() (*Set, error) {
	s := b.set
	if len(s.samples) == 0 {
		hint := ""
		if len(s.Skipped) > 0 {
			hint = fmt.Sprintf(": all %d were skipped, the first because: %v", len(s.Skipped), s.Skipped[0].Err)
		}
		return nil, fmt.Errorf("dataset: %s: %w%s", s.Name, ErrEmpty, hint)
	}
	if len(s.Classes) > infer.MaxClasses {
		return nil, fmt.Errorf("dataset: %s: %w: %d classes, allowed %d", s.Name, ErrTooLarge, len(s.Classes), infer.MaxClasses)
	}
	return s, nil
}

// some lists a few names for an error.
func some(names []string) string {
	if len(names) <= maxReported {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxReported], ", "), len(names)-maxReported)
}
