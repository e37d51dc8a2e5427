package camera

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func newRing(t *testing.T, slots, slotBytes int) *os.File {
	t.Helper()
	f, err := NewRing(slots, slotBytes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func openWriter(t *testing.T, f *os.File) *RingWriter {
	t.Helper()
	w, err := OpenWriter(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func openReader(t *testing.T, f *os.File) *RingReader {
	t.Helper()
	r, err := OpenReader(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// solid is a gray frame all of whose pixels tell its sequence number.
func solid(seq uint64, width, height int) *Frame {
	return &Frame{
		Seq: seq, CapturedAt: time.Duration(seq) * time.Millisecond,
		Width: width, Height: height, Stride: width, Format: Gray8,
		Data: bytes.Repeat([]byte{byte(seq)}, width*height),
	}
}

func TestRingCarriesFrames(t *testing.T) {
	file := newRing(t, 3, 6*4*3)
	w, r := openWriter(t, file), openReader(t, file)
	if err := SealRing(file); err != nil {
		t.Fatal(err)
	}
	late := openReader(t, file) // a reader may come after sealing

	var got Frame
	if ok, err := r.Next(0, &got); ok || err != nil {
		t.Fatalf("an empty ring gave %v, %v", ok, err)
	}
	for seq := uint64(1); seq <= 10; seq++ {
		want := solid(seq, 6, 4)
		if seq%2 == 0 { // with padding and in colour
			*want = Frame{Seq: seq, CapturedAt: 7, Width: 5, Height: 3, Stride: 16, Format: BGR8, Data: bytes.Repeat([]byte{byte(seq)}, 48)}
		}
		if err := w.Write(want); err != nil {
			t.Fatal(err)
		}
		for i, reader := range []*RingReader{r, late} {
			ok, err := reader.Next(seq-1, &got)
			if !ok || err != nil {
				t.Fatalf("reader %d, frame %d: %v, %v", i, seq, ok, err)
			}
			if got.Seq != want.Seq || got.CapturedAt != want.CapturedAt || got.Width != want.Width || got.Height != want.Height ||
				got.Stride != want.Stride || got.Format != want.Format || !bytes.Equal(got.Data, want.Data) {
				t.Fatalf("reader %d: got %+v, want %+v", i, got, *want)
			}
			if ok, _ := reader.Next(seq, &got); ok {
				t.Fatalf("reader %d got frame %d twice", i, seq)
			}
		}
	}
}

func TestNewestFrameWins(t *testing.T) {
	file := newRing(t, 2, 16)
	w, r := openWriter(t, file), openReader(t, file)
	for seq := uint64(1); seq <= 7; seq++ {
		if err := w.Write(solid(seq, 4, 4)); err != nil {
			t.Fatal(err)
		}
	}
	var got Frame
	if ok, err := r.Next(2, &got); !ok || err != nil || got.Seq != 7 {
		t.Fatalf("frame %d (%v, %v), want the newest, 7", got.Seq, ok, err)
	}
}

func TestWriterRefusesWhatDoesNotFit(t *testing.T) {
	file := newRing(t, 2, 16)
	w, r := openWriter(t, file), openReader(t, file)
	if err := w.Write(solid(1, 4, 5)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("20 bytes into a slot of 16: %v", err)
	}
	bad := solid(2, 4, 4)
	bad.Width = 5
	if err := w.Write(bad); !errors.Is(err, ErrFrame) {
		t.Errorf("a frame that contradicts itself: %v", err)
	}
	var got Frame
	if ok, err := r.Next(0, &got); ok || err != nil {
		t.Errorf("a refused frame was published: %v, %v", ok, err)
	}
}

func TestNewRingLimits(t *testing.T) {
	for _, tt := range []struct{ slots, bytes int }{{0, 10}, {1, 10}, {MaxSlots + 1, 10}, {-1, 10}, {4, 0}, {4, -1}, {4, MaxFrameBytes + 1}} {
		f, err := NewRing(tt.slots, tt.bytes)
		if !errors.Is(err, ErrRing) {
			t.Errorf("ring of %d × %d bytes: %v", tt.slots, tt.bytes, err)
		}
		if f != nil {
			f.Close()
		}
	}
}

// A ring of 4K slots must not cost memory before it holds 4K frames.
func TestUnusedSlotsCostNothing(t *testing.T) {
	file := newRing(t, DefaultSlots, DefaultSlotBytes)
	w := openWriter(t, file)
	for seq := uint64(1); seq <= 8; seq++ {
		if err := w.Write(solid(seq, 64, 48)); err != nil {
			t.Fatal(err)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if used := st.Blocks * 512; used > 64*1024 {
		t.Errorf("%d bytes in use for small frames", used)
	}
}

func TestSealedRingCannotBeMappedForWriting(t *testing.T) {
	file := newRing(t, 2, 64)
	w := openWriter(t, file)
	if err := SealRing(file); err != nil {
		t.Fatal(err)
	}
	if err := SealRing(file); err != nil {
		t.Errorf("sealing again: %v", err)
	}
	if second, err := OpenWriter(file); err == nil {
		second.Close()
		t.Error("a sealed ring was mapped for writing")
	}
	if _, err := file.WriteAt([]byte{1}, ringPage); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to a sealed ring: %v, want EPERM", err)
	}
	for _, size := range []int64{0, 1 << 30} {
		if err := file.Truncate(size); !errors.Is(err, unix.EPERM) {
			t.Errorf("resize to %d: %v, want EPERM", size, err)
		}
	}
	if _, err := unix.FcntlInt(file.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); !errors.Is(err, unix.EPERM) {
		t.Errorf("further seal: %v, want EPERM", err)
	}
	// A reader's mapping cannot be turned into a writable one either.
	r := openReader(t, file)
	if err := unix.Mprotect(r.ring.mem, unix.PROT_READ|unix.PROT_WRITE); err == nil {
		t.Error("a reader made its mapping writable")
	}
	if err := w.Write(solid(1, 4, 4)); err != nil {
		t.Errorf("the writer that mapped before: %v", err)
	}
	var got Frame
	if ok, err := r.Next(0, &got); !ok || err != nil {
		t.Errorf("read after sealing: %v, %v", ok, err)
	}
}

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

// The writer never waits and the readers never believe a torn frame: every
// pixel of a frame is of the same capture.
func TestReadersSeeWholeFrames(t *testing.T) {
	const side, readers, least = 48, 3, 200
	file := newRing(t, 2, side*side) // two slots: the reader is overtaken often
	w := openWriter(t, file)
	var stop atomic.Bool
	var wg sync.WaitGroup
	counts := make([]atomic.Int64, readers)
	failed := make(chan error, readers)
	for i := range readers {
		r := openReader(t, file)
		wg.Go(func() {
			defer counts[i].Store(least) // a reader that gave up must not keep the writer going
			var f Frame
			var last uint64
			for !stop.Load() {
				ok, err := r.Next(last, &f)
				if err != nil {
					failed <- err
					return
				}
				if !ok {
					runtime.Gosched()
					continue
				}
				if f.Seq <= last {
					failed <- fmt.Errorf("frame %d after frame %d", f.Seq, last)
					return
				}
				last = f.Seq
				if n := bytes.Count(f.Data, []byte{byte(f.Seq)}); n != len(f.Data) || f.CapturedAt != time.Duration(f.Seq)*time.Millisecond {
					failed <- fmt.Errorf("frame %d: %d of %d pixels are its own, captured %v", f.Seq, n, len(f.Data), f.CapturedAt)
					return
				}
				counts[i].Add(1)
			}
		})
	}
	enough := func() bool {
		for i := range counts {
			if counts[i].Load() < least {
				return false
			}
		}
		return true
	}
	f := solid(1, side, side)
	for seq := uint64(1); !enough(); seq++ {
		f.Seq, f.CapturedAt = seq, time.Duration(seq)*time.Millisecond
		for i := range f.Data {
			f.Data[i] = byte(seq)
		}
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
}

func TestNothingIsAllocatedPerFrame(t *testing.T) {
	file := newRing(t, 4, 640*480*3)
	w, r := openWriter(t, file), openReader(t, file)
	f := &Frame{Width: 640, Height: 480, Stride: 1920, Format: BGR8, Data: make([]byte, 640*480*3)}
	var got Frame
	ev, err := NewEvent()
	if err != nil {
		t.Fatal(err)
	}
	defer ev.Close()
	fd := EventFD(ev)
	allocs := testing.AllocsPerRun(100, func() {
		f.Seq++
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
		if err := Signal(fd); err != nil {
			t.Fatal(err)
		}
		if ok, err := Wait(ev, time.Minute); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if ok, err := r.Next(f.Seq-1, &got); !ok || err != nil {
			t.Fatal(ok, err)
		}
	})
	if allocs != 0 && !raceDetector {
		t.Errorf("%v allocations per frame", allocs)
	}
}

func BenchmarkWriteAndRead640x480(b *testing.B) {
	file, err := NewRing(4, 640*480*3)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	w, err := OpenWriter(file)
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	r, err := OpenReader(file)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	f := &Frame{Width: 640, Height: 480, Stride: 1920, Format: BGR8, Data: make([]byte, 640*480*3)}
	var got Frame
	b.SetBytes(int64(len(f.Data)))
	for b.Loop() {
		f.Seq++
		if err := w.Write(f); err != nil {
			b.Fatal(err)
		}
		if ok, err := r.Next(f.Seq-1, &got); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
