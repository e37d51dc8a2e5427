package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/agent/wire"
)

func blobOf(b []byte) Blob {
	return Blob{wire.NewBlobRef(b).Digest, int64(len(b)), func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
}

// content is a bundle of made-up metadata: this package does not look into it.
func content() *Content {
	manifest, model := []byte(`{"v":1}`), bytes.Repeat([]byte("weights"), 20_000)
	return &Content{
		Head: Head{V: 1, Fleet: "barn", Release: "release/gate/3", Manifest: wire.NewBlobRef(manifest).Digest, Plans: []string{"gate-3-r4"}, Created: 1_800_000_000, Expires: 1_800_086_400},
		Metadata: []Metadata{
			{wire.RoleRoot, 1, []byte(`{"root":1}`)}, {wire.RoleRoot, 2, []byte(`{"root":2}`)}, {wire.RoleTargets, 1, []byte(`{"t":1}`)},
			{wire.RoleModels, 7, []byte(`{"m":7}`)}, {wire.RoleRollouts, 12, []byte(`{"r":12}`)},
		},
		Current: []byte(`{"v":1}`),
		Blobs:   []Blob{blobOf(manifest), blobOf([]byte("golden")), blobOf(nil), blobOf(model)},
	}
}

func written(t testing.TB, c *Content) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func parse(b []byte) (*Bundle, error) { return Read(bytes.NewReader(b), int64(len(b))) }

func TestRoundTrip(t *testing.T) {
	c := content()
	raw := written(t, c)
	if !Is(raw[:13]) || Is([]byte("{\"v\":1}")) {
		t.Error("Is does not know a bundle")
	}
	b, err := parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	c.Head.Size, c.Head.Entries = int64(len(raw)), 2+5+4
	if d := cmp.Diff(c.Head, b.Head); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(c.Metadata, b.Metadata); d != "" {
		t.Error(d)
	}
	if m := b.Role(wire.RoleRoot); m == nil || m.Version != 2 || b.Role("timestamp") != nil || string(b.Current) != `{"v":1}` {
		t.Errorf("root %+v, current %s", m, b.Current)
	}
	for i, want := range c.Blobs {
		data, err := b.ReadBlob(bytes.NewReader(raw), b.Blobs()[i], want.Size)
		if err != nil || b.Blobs()[i] != want.Digest || int64(len(data)) != want.Size {
			t.Errorf("blob %d: %d bytes, %v", i, len(data), err)
		}
	}
	if err := b.Check(t.Context(), bytes.NewReader(raw)); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.Check(ctx, bytes.NewReader(raw)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled check: %v", err)
	}
	if again := written(t, content()); !bytes.Equal(again, raw) {
		t.Error("the same content gives other bytes")
	}
}

// TestGolden keeps the format what it was.
func TestGolden(t *testing.T) {
	want, err := os.ReadFile(filepath.Join("testdata", "bundle.drover"))
	if err != nil {
		t.Fatal(err)
	}
	c := content()
	c.Blobs = c.Blobs[:2]
	if got := written(t, c); !bytes.Equal(got, want) {
		t.Error("a bundle is not written as before; a change of the format needs another version")
	}
	if _, err := parse(want); err != nil {
		t.Error(err)
	}
}

// TestEveryCut reads a bundle cut all over, at both ends and the borders of blocks
// at every byte: none is whole, and none is taken for broken.
func TestEveryCut(t *testing.T) {
	c := content()
	c.Blobs = c.Blobs[:3]
	raw := written(t, c)
	for n := 0; n < len(raw); n++ {
		if n > 3*block && n < len(raw)-trailer-block-8 && n%block > 1 {
			n += 12 // the middle is like the beginning
		}
		if _, err := parse(raw[:n]); !errors.Is(err, ErrIncomplete) {
			t.Fatalf("%d of %d bytes: %v", n, len(raw), err)
		}
		// A copy that has its final size already, but not its bytes.
		half := append(bytes.Clone(raw[:n]), make([]byte, len(raw)-n)...)
		if b, err := parse(half); err == nil && !bytes.Equal(half, raw) {
			if err := b.Check(t.Context(), bytes.NewReader(half)); err == nil && n < int(b.spans[b.blobs[2]].offset) {
				t.Fatalf("%d of %d bytes, then zeros: taken for whole", n, len(raw))
			}
		}
	}
	if _, err := parse(append(bytes.Clone(raw), 0)); !errors.Is(err, ErrFormat) {
		t.Errorf("a byte too many: %v", err)
	}
}

// TestEveryBlobByteCounts damages blobs.
func TestEveryBlobByteCounts(t *testing.T) {
	raw := written(t, content())
	good, err := parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, digest := range good.Blobs() {
		off, size, _ := good.Blob(digest)
		for _, at := range []int64{0, size / 2, size - 1} {
			if at < 0 || at >= size {
				continue
			}
			bad := bytes.Clone(raw)
			bad[off+at] ^= 1
			b, err := parse(bad)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Check(t.Context(), bytes.NewReader(bad)); !errors.Is(err, ErrDigest) {
				t.Errorf("byte %d of %s: %v", at, digest, err)
			}
			if _, err := b.ReadBlob(bytes.NewReader(bad), digest, size); !errors.Is(err, ErrDigest) {
				t.Errorf("byte %d of %s read: %v", at, digest, err)
			}
		}
	}
}

// archive writes what Write would refuse.
func archive(t testing.TB, head Head, entries ...tar.Header) []byte {
	t.Helper()
	size := int64(trailer + 2*block)
	for _, e := range entries {
		size += block + padded(e.Size)
	}
	head.Size, head.Entries = size, len(entries)+1
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	raw := wire.Encode(head)
	if len(raw) > block {
		t.Fatal("head too long for this test")
	}
	entries = append([]tar.Header{*header(headName, int64(len(raw)))}, entries...)
	for i, e := range entries {
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		e.Mode = 0o644
		if err := tw.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
		body := make([]byte, e.Size)
		if i == 0 {
			body = raw
		}
		if _, err := tw.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHostileEntries is a table of what must not be in a bundle.
func TestHostileEntries(t *testing.T) {
	empty := wire.NewBlobRef(nil).Digest
	head := Head{V: 1, Fleet: "barn", Release: "release/gate/3", Manifest: empty, Created: 1, Expires: 2}
	e := func(name string) tar.Header { return tar.Header{Name: name} }
	whole := func() []tar.Header {
		return []tar.Header{e("root.1.json"), e("targets.1.json"), e("models.1.json"), e("rollouts.1.json"), e("current.json"), e(empty)}
	}
	with := func(at int, more ...tar.Header) []tar.Header {
		l := whole()
		return append(append(append([]tar.Header{}, l[:at]...), more...), l[at:]...)
	}
	other := strings.Repeat("ab", 32)
	for name, entries := range map[string][]tar.Header{
		"path upwards":        with(6, e("../../etc/passwd")),
		"absolute path":       with(6, e("/etc/passwd")),
		"folder in a name":    with(6, e("blobs/"+other)),
		"unknown name":        with(6, e("README")),
		"upper case digest":   with(6, e(strings.ToUpper(other))),
		"number with zero":    with(1, e("root.02.json")),
		"negative version":    with(1, e("root.-2.json")),
		"root twice":          with(1, e("root.1.json")),
		"root missing":        whole()[1:],
		"root left out":       with(1, e("root.3.json")),
		"root too late":       with(5, e("root.2.json")),
		"targets twice":       with(2, e("targets.2.json")),
		"rollouts missing":    append(append([]tar.Header{}, whole()[:3]...), whole()[4:]...),
		"current twice":       with(5, e("current.json")),
		"current missing":     append(append([]tar.Header{}, whole()[:4]...), whole()[5:]...),
		"blob twice":          with(6, e(empty)),
		"blob too early":      with(4, e(other)),
		"manifest not first":  with(5, e(other)),
		"no blob":             whole()[:5],
		"head twice":          with(0, e("drover-bundle")),
		"symbolic link":       with(6, tar.Header{Name: other, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}),
		"hard link":           with(6, tar.Header{Name: other, Typeflag: tar.TypeLink, Linkname: empty}),
		"device":              with(6, tar.Header{Name: other, Typeflag: tar.TypeBlock}),
		"pipe":                with(6, tar.Header{Name: other, Typeflag: tar.TypeFifo}),
		"folder":              with(6, tar.Header{Name: other, Typeflag: tar.TypeDir}),
		"pax header":          with(6, tar.Header{Name: other, Format: tar.FormatPAX, PAXRecords: map[string]string{"drover.x": "y"}}),
		"gnu header":          with(6, tar.Header{Name: other, Format: tar.FormatGNU}),
		"long name":           with(6, e(strings.Repeat("a", 300))),
		"manifest too large":  append(append([]tar.Header{}, whole()[:5]...), tar.Header{Name: empty, Size: wire.MaxManifest + 1}),
		"root too large":      append([]tar.Header{{Name: "root.1.json", Size: wire.MaxRoot + 1}}, whole()[1:]...),
		"current too large":   append(append([]tar.Header{}, whole()[:4]...), tar.Header{Name: "current.json", Size: wire.MaxCurrent + 1}, e(empty)),
		"nothing but a head ": {},
	} {
		t.Run(name, func(t *testing.T) {
			raw := archive(t, head, entries...)
			b, err := parse(raw)
			if !errors.Is(err, ErrFormat) && !errors.Is(err, ErrIncomplete) {
				t.Errorf("%+v, %v", b, err)
			}
		})
	}
	if _, err := parse(archive(t, head, whole()...)); err != nil {
		t.Errorf("the honest one: %v", err)
	}
}

func TestHostileHeads(t *testing.T) {
	good := content()
	raw := written(t, good)
	for name, change := range map[string]func(*Head){
		"version":      func(h *Head) { h.V = 2 },
		"fleet":        func(h *Head) { h.Fleet = "../barn" },
		"release":      func(h *Head) { h.Release = "release/gate" },
		"manifest":     func(h *Head) { h.Manifest = "x" },
		"size":         func(h *Head) { h.Size = MaxSize + block },
		"size odd":     func(h *Head) { h.Size++ },
		"size small":   func(h *Head) { h.Size = 0 },
		"many entries": func(h *Head) { h.Entries = MaxEntries + 1 },
		"no entries":   func(h *Head) { h.Entries = 0 },
		"one too many": func(h *Head) { h.Entries++ },
		"one too few":  func(h *Head) { h.Entries-- },
	} {
		t.Run(name, func(t *testing.T) {
			b, err := parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			h := b.Head
			change(&h)
			var bad bytes.Buffer
			tw := tar.NewWriter(&bad)
			text := wire.Encode(h)
			if err := errors.Join(tw.WriteHeader(header(headName, int64(len(text)))), second(tw.Write(text)), tw.Flush()); err != nil {
				t.Fatal(err)
			}
			bad.Write(raw[block+padded(int64(len(wire.Encode(b.Head)))):])
			if _, err := parse(bad.Bytes()); !errors.Is(err, ErrFormat) {
				t.Errorf("%v", err)
			}
		})
	}
}

func second(_ int, err error) error { return err }

func TestWriteRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Content)
		want   error
	}{
		"other bytes":     {func(c *Content) { c.Blobs[3].Open = c.Blobs[1].Open }, ErrDigest},
		"other digest":    {func(c *Content) { c.Blobs[1].Digest = strings.Repeat("ab", 32) }, ErrDigest},
		"fewer bytes":     {func(c *Content) { c.Blobs[1].Size++ }, ErrDigest},
		"no manifest":     {func(c *Content) { c.Blobs = c.Blobs[1:] }, ErrFormat},
		"blob twice":      {func(c *Content) { c.Blobs[2] = c.Blobs[1] }, ErrFormat},
		"wrong order":     {func(c *Content) { c.Metadata[3], c.Metadata[4] = c.Metadata[4], c.Metadata[3] }, ErrFormat},
		"no fleet":        {func(c *Content) { c.Head.Fleet = "" }, ErrFormat},
		"larger than 4 G": {func(c *Content) { c.Blobs = append(c.Blobs, many(9)...) }, ErrFormat},
		"a blob too large": {func(c *Content) {
			c.Blobs = append(c.Blobs, Blob{Digest: strings.Repeat("cd", 32), Size: wire.MaxBlob + 1})
		}, ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			all := content()
			c.change(all)
			if err := Write(io.Discard, all); !errors.Is(err, c.want) {
				t.Errorf("%v, wanted %v", err, c.want)
			}
		})
	}
}

func many(n int) []Blob {
	var out []Blob
	for i := range n {
		out = append(out, Blob{Digest: strings.Repeat("0", 63) + string("0123456789"[i]), Size: wire.MaxBlob})
	}
	return out
}
