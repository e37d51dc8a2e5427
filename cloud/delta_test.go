package cloud

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/ota/delta"
	"github.com/droverhq/drover/test/tinymodel"
)

// models are the bytes of n models, each a little different from the one
// before, and one that shares nothing but its tables.
func models(n int) (out [][]byte, other []byte) {
	next, _ := tinymodel.Build(tinymodel.Options{Name: "a", Padding: 20_000})
	for i := range n {
		out = append(out, slices.Clone(next))
		next[bytes.Index(next, []byte("ballast"))+400+i] ^= 1
	}
	other, _ = tinymodel.Build(tinymodel.Options{Name: "b", Padding: 20_000})
	return out, other
}

func digest(b []byte) string { return wire.NewBlobRef(b).Digest }

// TestDeltasOfARelease says from which models deltas are made, and which of
// them stay.
func TestDeltasOfARelease(t *testing.T) {
	f := testFleet(t)
	old, other := models(6)
	publish := func(model []byte) {
		if _, err := f.SignRelease(t.Context(), register(t, f, model), ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range old[:4] {
		publish(m)
	}
	publish(other)
	publish(old[3])                 // the same model again stands once
	never := register(t, f, old[5]) // a version that no device got
	for _, c := range []struct {
		name  string
		o     ReleaseOptions
		model []byte
		want  [][]byte // bases
		err   error
	}{
		{"the last ones", ReleaseOptions{}, old[4], [][]byte{old[3], old[2]}, nil}, // other is among the last three, and not worth it
		{"none wanted", ReleaseOptions{NoDelta: true}, old[4], nil, nil},
		{"one wanted", ReleaseOptions{DeltaFrom: []string{"tiny@1"}}, old[4], [][]byte{old[0]}, nil},
		{"two wanted, one of them twice", ReleaseOptions{DeltaFrom: []string{"tiny@2", "tiny@1", "tiny@2"}}, old[4], [][]byte{old[1], old[0]}, nil},
		{"the same model", ReleaseOptions{DeltaFrom: []string{"tiny@1"}}, old[0], nil, nil},
		{"one that is not worth it", ReleaseOptions{DeltaFrom: []string{"tiny@5"}}, old[4], nil, nil},
		{"one that was never released", ReleaseOptions{DeltaFrom: []string{"tiny@7"}}, old[4], nil, registry.ErrNotFound},
		{"one that is not known", ReleaseOptions{DeltaFrom: []string{"tiny@70"}}, old[4], nil, registry.ErrNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := &wire.Variant{Name: "cpu", Model: wire.NewBlobRef(c.model)}
			err := f.addDeltas(t.Context(), v, c.model, registry.Model{Name: "tiny", Version: never.Version}, &c.o)
			if !errors.Is(err, c.err) {
				t.Fatalf("%v, want %v", err, c.err)
			}
			if len(v.Deltas) != len(c.want) {
				t.Fatalf("%d deltas, want %d", len(v.Deltas), len(c.want))
			}
			for i, d := range v.Deltas {
				if d.Base != digest(c.want[i]) || d.Size != int64(len(c.want[i])) {
					t.Errorf("delta %d is from %s of %d bytes", i, d.Base, d.Size)
				}
				if d.Blob.Size > int64(len(c.model)/50) {
					t.Errorf("delta %d has %d bytes", i, d.Blob.Size)
				}
				raw, err := f.Registry.ReadBlob(t.Context(), d.Blob.Digest, wire.MaxBlob)
				if err != nil {
					t.Fatal(err)
				}
				var got bytes.Buffer
				if err := delta.Apply(c.want[i], bytes.NewReader(raw), d.Blob.Size, &got); err != nil || !bytes.Equal(got.Bytes(), c.model) {
					t.Errorf("delta %d gives %d bytes, %v", i, got.Len(), err)
				}
			}
		})
	}
}
