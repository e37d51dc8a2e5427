package wire_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/droverhq/drover/agent/wire"
)

func TestRepair(t *testing.T) {
	digest := bigRef().Digest
	for name, c := range map[string]struct {
		rest    string
		payload []byte
		ok      bool
	}{
		"whole chunk":   {"8192", wire.Repair(digest, make([]byte, wire.ChunkSize)), true},
		"empty chunk":   {"0", wire.Repair(digest, nil), true},
		"too long":      {"0", append(wire.Repair(digest, make([]byte, wire.ChunkSize)), 0), false},
		"no digest":     {"0", []byte("short"), false},
		"negative":      {"-1", wire.Repair(digest, nil), false},
		"not canonical": {"01", wire.Repair(digest, nil), false},
		"too far":       {"8193", wire.Repair(digest, nil), false},
		"no number":     {"x", wire.Repair(digest, nil), false},
	} {
		d, n, data, err := wire.ParseRepair(c.rest, c.payload)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (d != digest || n < 0 || !bytes.Equal(wire.Repair(d, data), c.payload)) {
			t.Errorf("%s: %s %d", name, d, n)
		}
	}
	if wire.Repair("no digest", nil) != nil {
		t.Error("a repair without a digest")
	}
}

func FuzzParseRepair(f *testing.F) {
	f.Add("3", wire.Repair(bigRef().Digest, []byte("chunk")))
	f.Add("-3", []byte("chunk"))
	f.Fuzz(func(t *testing.T, rest string, payload []byte) {
		d, n, data, err := wire.ParseRepair(rest, payload)
		if err == nil && (!wire.ValidDigest(d) || n < 0 || len(data) > wire.ChunkSize || !bytes.Equal(wire.Repair(d, data), payload)) {
			t.Fatalf("%q: %s %d %d", rest, d, n, len(data))
		}
	})
}
