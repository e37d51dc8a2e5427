package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/droverhq/drover/infer"
)

// BlobRef names immutable bytes: a model, golden inputs, a report.
type BlobRef struct {
	Digest string `json:"sha256"` // lower-case hexadecimal, of the whole blob
	Size   int64  `json:"size"`
	// Chunks is the SHA-256 of every ChunkSize bytes, one after the other (32
	// bytes each). A blob of one chunk needs none: its digest serves.
	Chunks []byte `json:"chunks,omitempty"`
}

// NewBlobRef computes the reference of b.
func NewBlobRef(b []byte) BlobRef {
	sum := sha256.Sum256(b)
	ref := BlobRef{Digest: hex.EncodeToString(sum[:]), Size: int64(len(b))}
	if len(b) > ChunkSize {
		for chunk := range slices.Chunk(b, ChunkSize) {
			c := sha256.Sum256(chunk)
			ref.Chunks = append(ref.Chunks, c[:]...)
		}
	}
	return ref
}

// Count is the number of chunks; an empty blob has one empty chunk.
func (r BlobRef) Count() int { return int(max(1, (r.Size+ChunkSize-1)/ChunkSize)) }

// ChunkLen is the length of chunk i.
func (r BlobRef) ChunkLen(i int) int {
	return int(min(ChunkSize, r.Size-int64(i)*ChunkSize))
}

// CheckChunk says whether b is chunk i of the blob.
func (r BlobRef) CheckChunk(i int, b []byte) bool {
	if i < 0 || i >= r.Count() || len(b) != r.ChunkLen(i) {
		return false
	}
	sum := sha256.Sum256(b)
	if len(r.Chunks) == 0 {
		return r.Count() == 1 && hex.EncodeToString(sum[:]) == r.Digest
	}
	return bytes.Equal(sum[:], r.Chunks[i*sha256.Size:(i+1)*sha256.Size])
}

func (r BlobRef) check(what string, limit int64) error {
	switch {
	case !ValidDigest(r.Digest):
		return fmt.Errorf("%w: %s: no SHA-256", ErrMalformed, what)
	case r.Size < 0 || r.Size > limit:
		return fmt.Errorf("%w: %s: %d bytes, allowed %d", ErrTooLarge, what, r.Size, limit)
	case len(r.Chunks) == 0 && r.Count() == 1:
	case len(r.Chunks) != r.Count()*sha256.Size:
		return fmt.Errorf("%w: %s: %d bytes of chunk digests for %d chunks", ErrMalformed, what, len(r.Chunks), r.Count())
	}
	return nil
}

// Variant is one form of the release's model. All variants answer the same
// question with the same labels; a device runs the best it can.
type Variant struct {
	Name  string     `json:"name"` // cpu, edgetpu, int8, …
	Model BlobRef    `json:"model"`
	Spec  infer.Spec `json:"spec"`
	// Golden is a blob holding a Golden: decoded pictures with the outputs
	// the signer's own runtime gave.
	Golden    BlobRef  `json:"golden"`
	Tolerance int      `json:"tolerance"`          // quanta an output element may differ (float32: 1/256 of full scale each), 0 … 8
	Requires  []string `json:"requires,omitempty"` // capabilities, e.g. "edgetpu"
	// Deltas give Model to devices that hold another one; at most one per base.
	Deltas []Delta `json:"deltas,omitempty"`
}

// Delta makes a variant's model of another model (ota/delta). It is smaller
// than the model, or it would not stand here.
type Delta struct {
	Base string  `json:"base"` // digest of the model it starts from
	Size int64   `json:"size"` // of the base: what applying holds in memory, beside 8 MiB
	Blob BlobRef `json:"blob"`
}

// Budget is what a variant may cost on the device; 0 means no limit.
type Budget struct {
	LatencyP99Micros int64 `json:"latency_p99_us,omitempty"` // of one inference, preprocessing included
	MemoryBytes      int64 `json:"memory_bytes,omitempty"`   // resident size of the child
	DataBytes        int64 `json:"data_bytes,omitempty"`     // received for this update, everything counted
}

// Manifest is a release: what the role models signs.
type Manifest struct {
	V        int       `json:"v"`
	Model    string    `json:"model"`
	Version  int       `json:"version"` // 1, 2, 3 … per model
	Created  int64     `json:"created"` // Unix seconds
	Epoch    uint64    `json:"epoch"`   // security epoch; a device refuses less than its anchor holds
	Notes    string    `json:"notes,omitempty"`
	Variants []Variant `json:"variants"`
	Budget   Budget    `json:"budget"`
	Report   *BlobRef  `json:"report,omitempty"` // evaluation report, JSON
	Dataset  string    `json:"dataset,omitempty"`
	Requires []string  `json:"requires,omitempty"` // agent features; a device lacking one refuses
}

// ReleasePath is the TUF target path of a release.
func ReleasePath(model string, version int) string {
	return "release/" + model + "/" + strconv.Itoa(version)
}

// ParseReleasePath is the reverse of ReleasePath.
func ParseReleasePath(path string) (model string, version int, err error) {
	parts := strings.Split(path, "/")
	if len(parts) == 3 && parts[0] == "release" && ValidName(parts[1]) {
		if v, err := strconv.Atoi(parts[2]); err == nil && v >= 1 && strconv.Itoa(v) == parts[2] {
			return parts[1], v, nil
		}
	}
	return "", 0, fmt.Errorf("%w: %q is no release path (release/MODEL/VERSION)", ErrMalformed, path)
}

// Path is the release's target path.
func (m *Manifest) Path() string { return ReleasePath(m.Model, m.Version) }

// DecodeManifest decodes and checks a manifest. It proves nothing about who
// wrote it: that is ota/trust's part.
func DecodeManifest(b []byte) (*Manifest, error) {
	m := new(Manifest)
	if err := DecodeStrict(b, MaxManifest, m); err != nil {
		return nil, err
	}
	return m, m.Check()
}

// Check says whether the manifest is complete and within the limits.
func (m *Manifest) Check() error {
	if !ValidName(m.Model) || m.Version < 1 {
		return fmt.Errorf("%w: model %q version %d", ErrMalformed, m.Model, m.Version)
	}
	if len(m.Variants) < 1 || len(m.Variants) > MaxVariants {
		return fmt.Errorf("%w: %d variants, wanted 1 to %d", ErrMalformed, len(m.Variants), MaxVariants)
	}
	names := map[string]bool{}
	for i := range m.Variants {
		v := &m.Variants[i]
		if !ValidName(v.Name) || names[v.Name] {
			return fmt.Errorf("%w: variant name %q is no name or stands twice", ErrMalformed, v.Name)
		}
		names[v.Name] = true
		if err := v.Model.check("model of variant "+v.Name, MaxBlob); err != nil {
			return err
		}
		if err := v.Golden.check("golden inputs of variant "+v.Name, MaxGolden); err != nil {
			return err
		}
		if v.Tolerance < 0 || v.Tolerance > 8 {
			return fmt.Errorf("%w: tolerance %d of variant %s, wanted 0 to 8", ErrMalformed, v.Tolerance, v.Name)
		}
		if err := v.Spec.Check(); err != nil {
			return fmt.Errorf("%w: variant %s: %w", ErrMalformed, v.Name, err)
		}
		if err := v.checkDeltas(); err != nil {
			return err
		}
		if !slices.Equal(v.Spec.Labels, m.Variants[0].Spec.Labels) {
			return fmt.Errorf("%w: variant %s has other labels than %s", ErrMalformed, v.Name, m.Variants[0].Name)
		}
	}
	b := m.Budget
	if b.LatencyP99Micros < 0 || b.MemoryBytes < 0 || b.DataBytes < 0 {
		return fmt.Errorf("%w: negative budget", ErrMalformed)
	}
	if m.Report != nil {
		return m.Report.check("report", MaxBlob)
	}
	return nil
}

func (v *Variant) checkDeltas() error {
	if len(v.Deltas) > MaxDeltas {
		return fmt.Errorf("%w: %d deltas of variant %s, allowed %d", ErrMalformed, len(v.Deltas), v.Name, MaxDeltas)
	}
	bases := map[string]bool{v.Model.Digest: true}
	for _, d := range v.Deltas {
		if !ValidDigest(d.Base) || bases[d.Base] {
			return fmt.Errorf("%w: variant %s: delta from %.80q, which is no SHA-256, the model itself, or stands twice", ErrMalformed, v.Name, d.Base)
		}
		bases[d.Base] = true
		if d.Size < 1 || d.Size > MaxBlob {
			return fmt.Errorf("%w: variant %s: delta from a model of %d bytes", ErrMalformed, v.Name, d.Size)
		}
		if err := d.Blob.check("delta of variant "+v.Name, v.Model.Size-1); err != nil {
			return err
		}
	}
	return nil
}
