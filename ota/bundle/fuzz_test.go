package bundle

import (
	"bytes"
	"testing"
)

// FuzzRead: what is read can be written again, and gives the same; nothing
// panics and nothing lies outside the file.
func FuzzRead(f *testing.F) {
	c := content()
	c.Blobs = c.Blobs[:3]
	raw := written(f, c)
	if len(raw) < 10*block {
		f.Fatal("the seed is empty")
	}
	f.Add(raw)
	f.Add(raw[:len(raw)-1])
	f.Add(raw[:3*block])
	for _, at := range []int{0, 100, 124, 148, 156, 257, 345, block + 7, 2*block + 156, 2*block + 124} {
		bad := bytes.Clone(raw)
		bad[at] ^= 4
		f.Add(bad)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := parse(raw)
		if err != nil {
			return
		}
		if b.Head.Size != int64(len(raw)) || len(b.Blobs()) == 0 || b.Blobs()[0] != b.Head.Manifest {
			t.Fatalf("accepted: %+v", b.Head)
		}
		for _, d := range b.Blobs() {
			if off, size, ok := b.Blob(d); !ok || off < block || size < 0 || off+size > int64(len(raw))-trailer {
				t.Fatalf("blob %s at %d, %d bytes, of a file of %d", d, off, size, len(raw))
			}
		}
		if b.Check(t.Context(), bytes.NewReader(raw)) == nil {
			again := Content{Head: b.Head, Metadata: b.Metadata, Current: b.Current}
			for _, d := range b.Blobs() {
				data, err := b.ReadBlob(bytes.NewReader(raw), d, int64(len(raw)))
				if err != nil {
					t.Fatal(err)
				}
				again.Blobs = append(again.Blobs, blobOf(data))
			}
			var out bytes.Buffer
			if err := Write(&out, &again); err != nil {
				t.Fatalf("what was read is not written: %v", err)
			}
			if _, err := parse(out.Bytes()); err != nil {
				t.Fatalf("what was written is not read: %v", err)
			}
		}
	})
}
