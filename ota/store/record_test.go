package store

import (
	"bytes"
	"testing"
)

func FuzzRecord(f *testing.F) {
	seeds := [][]byte{
		encodeRecord(1, nil), encodeRecord(1<<63, []byte("payload")), encodeRecord(7, []byte("a\nb\n")),
		[]byte("drover-record 1 0 \n"), []byte("drover-record 0 0 x\n"), []byte("x"),
	}
	for _, s := range seeds {
		if len(s) == 0 {
			f.Fatal("empty seed")
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rev, payload, err := decodeRecord(b)
		if err == nil && !bytes.Equal(encodeRecord(rev, payload), b) {
			t.Errorf("%q is accepted and written otherwise", b)
		}
	})
}

func TestRecordAnyChangeIsSeen(t *testing.T) {
	good := encodeRecord(41, []byte("what matters"))
	if rev, p, err := decodeRecord(good); err != nil || rev != 41 || string(p) != "what matters" {
		t.Fatalf("%d %q %v", rev, p, err)
	}
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if _, _, err := decodeRecord(b); err == nil {
				t.Errorf("bit %d of byte %d changed unseen", bit, i)
			}
		}
		if _, _, err := decodeRecord(good[:i]); err == nil {
			t.Errorf("a record cut at %d is accepted", i)
		}
	}
}
