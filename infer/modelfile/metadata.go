package modelfile

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/droverhq/drover/infer"
)

// Names of the metadata schema.
const (
	metadataEntry      = "TFLITE_METADATA"
	metadataIdentifier = "M001"

	fileAxisLabels = 2 // AssociatedFileType TENSOR_AXIS_LABELS
	unitNormalize  = 1 // ProcessUnitOptions NormalizationOptions

	metaName, metaDescription, metaVersion, metaSubgraphs = 0, 1, 2, 3
	metaMinParser                                         = 7

	metaInputs, metaOutputs = 2, 3 // of a subgraph

	metaTensorName, metaContent, metaUnits, metaFiles = 0, 3, 4, 6 // of a tensor

	fileName, fileType = 0, 2
)

// Bounds of what Labels reads.
const (
	maxZipFiles   = 64
	maxLabelsFile = infer.MaxClasses * (infer.MaxLabelBytes + 2)
)

// Normalization returns the mean and standard deviation of the input that the
// metadata records, one value or one per channel; both nil if it records none.
// Real input = (pixel − mean) ÷ std with pixel in 0…255.
func (m *Model) Normalization() (mean, std []float32, err error) {
	tensor, err := m.metaTensor(metaInputs)
	if err != nil || tensor.r == nil {
		return nil, nil, err
	}
	units, _ := tensor.vec(metaUnits, 4, "process units")
	for i := range units.n {
		u := units.table(i)
		if u.byte(0, 0) != unitNormalize {
			continue
		}
		if o, ok := u.sub(1, "normalization"); ok {
			if v, ok := o.vec(0, 4, "mean"); ok {
				mean = v.floats()
			}
			if v, ok := o.vec(1, 4, "std"); ok {
				std = v.floats()
			}
		}
		break
	}
	if tensor.r.err != nil {
		return nil, nil, tensor.r.err
	}
	if (len(mean) == 0) != (len(std) == 0) {
		return nil, nil, fmt.Errorf("%w: metadata has %d mean and %d std values", ErrCorrupt, len(mean), len(std))
	}
	return mean, std, nil
}

// Labels returns the class names out of the label file that belongs to the
// output tensor, one a line; nil if the model has none.
func (m *Model) Labels() ([]string, error) {
	tensor, err := m.metaTensor(metaOutputs)
	if err != nil || tensor.r == nil {
		return nil, err
	}
	name := ""
	files, _ := tensor.vec(metaFiles, 4, "associated files")
	for i := 0; i < files.n && name == ""; i++ {
		if f := files.table(i); f.byte(fileType, 0) == fileAxisLabels {
			name = f.str(fileName, "associated file name")
		}
	}
	if tensor.r.err != nil || name == "" {
		return nil, tensor.r.err
	}
	text, err := m.file(name)
	if err != nil {
		return nil, err
	}
	labels := strings.Split(strings.TrimRight(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n"), "\n")
	if len(labels) > infer.MaxClasses {
		return nil, fmt.Errorf("%w: %d labels, allowed %d", ErrLimit, len(labels), infer.MaxClasses)
	}
	for i, l := range labels {
		if len(l) > infer.MaxLabelBytes {
			return nil, fmt.Errorf("%w: label %d has %d bytes, allowed %d", ErrLimit, i, len(l), infer.MaxLabelBytes)
		}
	}
	return labels, nil
}

// metaTensor returns the metadata table of the first input or output; a table
// without reader if there is none.
func (m *Model) metaTensor(slot int) (table, error) {
	for _, e := range m.Entries {
		if e.Name != metadataEntry {
			continue
		}
		r := &reader{b: m.Buffers[e.Buffer].Data}
		if len(r.b) < 8 || string(r.b[4:8]) != metadataIdentifier {
			return table{}, fmt.Errorf("%w: metadata identifier %q missing in %d bytes", ErrCorrupt, metadataIdentifier, len(r.b))
		}
		var t table
		if to, ok := r.follow(0, "metadata root"); ok {
			root := r.table(to, "metadata")
			if graphs, _ := root.vec(metaSubgraphs, 4, "subgraph metadata"); graphs.n > 0 {
				if tensors, _ := graphs.table(0).vec(slot, 4, "tensor metadata"); tensors.n > 0 {
					t = tensors.table(0)
				}
			}
		}
		return t, r.err
	}
	return table{}, nil
}

// file reads one file of the zip archive at the model's tail.
func (m *Model) file(name string) ([]byte, error) {
	z, err := zip.NewReader(bytes.NewReader(m.raw), int64(len(m.raw)))
	if err != nil {
		return nil, fmt.Errorf("%w: associated file %q: %w", ErrCorrupt, name, err)
	}
	if len(z.File) > maxZipFiles {
		return nil, fmt.Errorf("%w: %d associated files, allowed %d", ErrLimit, len(z.File), maxZipFiles)
	}
	for _, f := range z.File {
		if f.Name != name {
			continue
		}
		in, err := f.Open()
		if err != nil {
			return nil, fmt.Errorf("%w: associated file %q: %w", ErrCorrupt, name, err)
		}
		text, err := io.ReadAll(io.LimitReader(in, maxLabelsFile+1))
		if err := in.Close(); err != nil {
			return nil, fmt.Errorf("%w: associated file %q: %w", ErrCorrupt, name, err)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: associated file %q: %w", ErrCorrupt, name, err)
		}
		if len(text) > maxLabelsFile {
			return nil, fmt.Errorf("%w: associated file %q is larger than %d bytes", ErrLimit, name, maxLabelsFile)
		}
		return text, nil
	}
	return nil, fmt.Errorf("%w: associated file %q is missing", ErrCorrupt, name)
}
