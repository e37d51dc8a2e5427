package anchor

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzRecord(f *testing.F) {
	r, err := newRecord(Options{Device: "/dev/tpmrm0"}.withDefaults(), 3)
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	if err := r.save(dir); err != nil {
		f.Fatal(err)
	}
	seed, err := readFile(dir + "/" + recordCopies[0])
	if err != nil || len(seed) == 0 {
		f.Fatal(err)
	}
	if _, err := parseRecord(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"record":{"v":1},"sha256":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRecord(b)
		if err != nil {
			return
		}
		if r.Stage == stageReady {
			if _, err := r.public(); err != nil {
				t.Fatal("accepted a complete record without a key")
			}
		}
		if len(r.auth(authNV)) != 32 {
			t.Fatal("accepted a record without a secret")
		}
	})
}

func FuzzEpoch(f *testing.F) {
	seed, err := json.Marshal(epochRecord{7, checksum(7)})
	if err != nil {
		f.Fatal(err)
	}
	if e, err := parseEpoch(seed); err != nil || e != 7 {
		f.Fatal(e, err)
	}
	f.Add(seed)
	f.Add([]byte(`{"epoch":0,"sha256":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := parseEpoch(b); err == nil && !bytes.Contains(b, []byte(checksum(e))) {
			t.Fatal("accepted without its checksum")
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte{0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 1, 2, 9})
	f.Add([]byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b))
		if err == nil && (len(m) < headerSize || len(m) > maxMessage || !bytes.Equal(m, b[:len(m)])) {
			t.Fatalf("%x gave %x", b, m)
		}
	})
}

func FuzzBase(f *testing.F) {
	name := make([]byte, nameSize)
	f.Add(formatBase(5, name))
	f.Fuzz(func(t *testing.T, b []byte) {
		if zero, err := parseBase(b, name); err == nil && !bytes.Equal(formatBase(zero, name), b) {
			t.Fatalf("%x is not what is written for %d", b, zero)
		}
	})
}
