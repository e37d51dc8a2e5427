package camera

import (
	"bytes"
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
