package camera

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsNoRingIsRefused(t *testing.T) {
	good := make([]byte, offTicket)
	le := binary.LittleEndian
	le.PutUint64(good[offMagic:], ringMagic)
	le.PutUint32(good[offVersion:], ringVersion)
	le.PutUint32(good[offSlots:], 2)
	le.PutUint64(good[offBytes:], 64)
	geo := geometry{slots: 2, slotBytes: 64}

	memfd := func(head []byte, size int64, seals int) *os.File {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "x")
		t.Cleanup(func() { f.Close() })
		if _, err := f.Write(head); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(size); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
			t.Fatal(err)
		}
		return f
	}
	edit := func(off int, b ...byte) []byte {
		head := bytes.Clone(good)
		copy(head[off:], b)
		return head
	}
	plain, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	pipe, other, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer other.Close()
	ff := bytes.Repeat([]byte{255}, 8)

	for _, tt := range []struct {
		name string
		file *os.File
	}{
		{"a plain file", plain},
		{"a pipe", pipe},
		{"size not sealed", memfd(good, geo.size(), unix.F_SEAL_GROW)},
		{"empty", memfd(nil, 0, sealsOfNewRing)},
		{"shorter than the header", memfd(good[:20], 20, sealsOfNewRing)},
		{"header only", memfd(good, ringPage, sealsOfNewRing)},
		{"one page short", memfd(good, geo.size()-ringPage, sealsOfNewRing)},
		{"one byte long", memfd(good, geo.size()+1, sealsOfNewRing)},
		{"magic", memfd(edit(offMagic, 0), geo.size(), sealsOfNewRing)},
		{"version", memfd(edit(offVersion, 2), geo.size(), sealsOfNewRing)},
		{"no slots", memfd(edit(offSlots, 0), geo.size(), sealsOfNewRing)},
		{"one slot", memfd(edit(offSlots, 1), geo.size(), sealsOfNewRing)},
		{"more slots", memfd(edit(offSlots, 3), geo.size(), sealsOfNewRing)},
		{"4 billion slots", memfd(edit(offSlots, ff[:4]...), geo.size(), sealsOfNewRing)},
		{"slots of no bytes", memfd(edit(offBytes, 0), geo.size(), sealsOfNewRing)},
		{"slots of 2^64-1 bytes", memfd(edit(offBytes, ff...), geo.size(), sealsOfNewRing)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := OpenReader(tt.file); !errors.Is(err, ErrRing) {
				t.Errorf("reader: %v, %v", r, err)
			}
			if w, err := OpenWriter(tt.file); !errors.Is(err, ErrRing) {
				t.Errorf("writer: %v, %v", w, err)
			}
		})
	}
	if r, err := OpenReader(memfd(good, geo.size(), sealsOfNewRing)); err != nil {
		t.Errorf("the unchanged header is refused: %v", err)
	} else {
		r.Close()
	}
}

// A hostile writer may put anything into its mapping at any time.
func TestHostileHeaders(t *testing.T) {
	file := newRing(t, 2, 4096)
	w, r := openWriter(t, file), openReader(t, file)
	const top = ^uint32(0)
	for _, tt := range []struct {
		name                          string
		width, height, stride, format uint32
		captured                      uint64
	}{
		{"no pixels", 0, 0, 0, 1, 0},
		{"no width", 0, 4, 4, 2, 0},
		{"no height", 4, 0, 4, 2, 0},
		{"all ones", top, top, top, top, 0},
		{"no format", 4, 4, 12, 0, 0},
		{"unknown format", 4, 4, 12, 3, 0},
		{"stride under the width", 4, 4, 11, 1, 0},
		{"more bytes than the slot", 64, 64, 192, 1, 0},
		{"one byte more than the slot", 4097, 1, 4097, 2, 0},
		{"product wraps 32 bits", 1, 65536, 65537, 2, 0},
		{"negative as int32", 1 << 31, 1 << 31, 1 << 31, 2, 0},
		{"too wide", MaxSide + 1, 1, MaxSide + 1, 2, 0},
		{"captured before the machine started", 4, 4, 4, 2, 1 << 63},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := w.Write(solid(w.ticket+1, 4, 4)); err != nil {
				t.Fatal(err)
			}
			slot := w.ring.slot(w.ticket)
			word64(slot, slotSize).Store(uint64(tt.width) | uint64(tt.height)<<32)
			word64(slot, slotLayout).Store(uint64(tt.stride) | uint64(tt.format)<<32)
			word64(slot, slotCaptured).Store(tt.captured)
			var got Frame
			if ok, err := r.Next(0, &got); ok || !errors.Is(err, ErrFrame) {
				t.Errorf("got %v, %v: %d×%d, %d bytes", ok, err, got.Width, got.Height, len(got.Data))
			}
		})
	}
	t.Run("a slot that stays locked", func(t *testing.T) {
		word64(w.ring.slot(w.ticket), slotLock).Store(7)
		torn := r.Torn()
		var got Frame
		if ok, err := r.Next(0, &got); ok || err != nil {
			t.Errorf("got %v, %v", ok, err)
		}
		if r.Torn() != torn+1 {
			t.Errorf("torn %d, want %d", r.Torn(), torn+1)
		}
	})
	t.Run("tickets and geometry of any value", func(t *testing.T) {
		for _, ticket := range []uint64{0, 1, 2, 3, 1<<63 - 1, 1 << 63, ^uint64(0)} {
			w.ring.ticket().Store(ticket)
			copy(w.ring.mem[:32], bytes.Repeat([]byte{0xff}, 32))
			var got Frame
			if ok, err := r.Next(0, &got); err != nil && !errors.Is(err, ErrFrame) {
				t.Errorf("ticket %d: %v, %v", ticket, ok, err)
			}
		}
	})
}

// Any bytes in a slot are a frame or an error.
func FuzzHostileSlot(f *testing.F) {
	file, err := NewRing(2, 256)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	w, err := OpenWriter(file)
	if err != nil {
		f.Fatal(err)
	}
	if err := w.Write(solid(3, 8, 8)); err != nil {
		f.Fatal(err)
	}
	seed := bytes.Clone(w.ring.slot(1)[:slotHeader])
	f.Add(uint64(1), seed)
	f.Add(^uint64(0), bytes.Repeat([]byte{255}, slotHeader))
	f.Fuzz(func(t *testing.T, ticket uint64, header []byte) {
		file, err := NewRing(2, 256)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		w, err := OpenWriter(file)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		r, err := OpenReader(file)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		w.ring.ticket().Store(ticket)
		copy(w.ring.slot(ticket)[:slotHeader], header)
		var got Frame
		ok, err := r.Next(0, &got)
		if ok {
			if err := got.Check(); err != nil {
				t.Fatal(err)
			}
		} else if err != nil && !errors.Is(err, ErrFrame) {
			t.Fatal(err)
		}
	})
}
