package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

func open(t testing.TB, dir string, c Config) *Outbox {
	t.Helper()
	c.Log = quiet
	o, err := Open(dir, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() }) // second close of some
	return o
}

func put(t testing.TB, o *Outbox, payload string) {
	t.Helper()
	if err := o.Put("a/topic", []byte(payload)); err != nil {
		t.Fatal(err)
	}
}

// drain sends everything that waits, and returns it.
func drain(t testing.TB, o *Outbox) []string {
	t.Helper()
	var got []string
	for {
		more, err := o.step(context.Background(), func(_ context.Context, _ string, p []byte) error {
			got = append(got, string(p))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return got
		}
	}
}

func equal(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("message %d", i))
	}
	return out
}

func TestOrderAndReopening(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, Config{})
	for _, m := range numbers(0, 10) {
		put(t, o, m)
	}
	var got []string
	for range 4 {
		if _, err := o.step(t.Context(), func(_ context.Context, _ string, p []byte) error { got = append(got, string(p)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, got, numbers(0, 4))
	o = open(t, dir, Config{}) // without Close, as after a kill
	put(t, o, "message 10")
	equal(t, drain(t, o), numbers(4, 11))
	o = open(t, dir, Config{})
	equal(t, drain(t, o), nil)
}

// A kill or a power cut leaves a file that ends anywhere.
func TestCutAtEveryByte(t *testing.T) {
	src := t.TempDir()
	o := open(t, src, Config{})
	const n = 4
	ends := []int{len(magic)}
	for i, m := range numbers(0, n) {
		put(t, o, m)
		ends = append(ends, ends[i]+headLen+fixedLen+len("a/topic")+len(m))
	}
	files, err := segmentFiles(src)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(whole) != ends[n] {
		t.Fatalf("file of %d bytes, expected %d", len(whole), ends[n])
	}
	for cut := range whole {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(files[0])), whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		sound := 0
		for sound < n && ends[sound+1] <= cut {
			sound++
		}
		o := open(t, dir, Config{})
		put(t, o, "new")
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
		o = open(t, dir, Config{})
		equal(t, drain(t, o), append(numbers(0, sound), "new"))
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDamageAtEveryByte(t *testing.T) {
	src := t.TempDir()
	o := open(t, src, Config{})
	for _, m := range numbers(0, 3) {
		put(t, o, m)
	}
	files, err := segmentFiles(src)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		dir := t.TempDir()
		b := slices.Clone(whole)
		b[i] ^= 0x40
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(files[0])), b, 0o600); err != nil {
			t.Fatal(err)
		}
		o := open(t, dir, Config{})
		got := drain(t, o)
		if len(got) > 2 || !slices.Equal(got, numbers(0, len(got))) {
			t.Errorf("byte %d damaged: got %q", i, got)
		}
		if err := o.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCursorCutAtEveryByte(t *testing.T) {
	for cut := range cursorLen {
		dir := t.TempDir()
		o := open(t, dir, Config{})
		for _, m := range numbers(0, 3) {
			put(t, o, m)
		}
		drain(t, o)
		put(t, o, "message 3")
		if err := os.Truncate(filepath.Join(dir, cursorName), int64(cut)); err != nil {
			t.Fatal(err)
		}
		equal(t, drain(t, open(t, dir, Config{})), numbers(0, 4)) // repeated, not lost
	}
}

func TestCountBound(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, Config{MaxCount: 5})
	for _, m := range numbers(0, 12) {
		put(t, o, m)
	}
	if s := o.Stats(); s.Dropped != 7 || s.Waiting != 5 {
		t.Errorf("%+v", s)
	}
	equal(t, drain(t, open(t, dir, Config{MaxCount: 5})), numbers(7, 12))
}

func TestByteBound(t *testing.T) {
	dir := t.TempDir()
	c := Config{MaxBytes: 10_000, SegmentSize: 1000}
	o := open(t, dir, c)
	big := strings.Repeat("x", 300)
	for i := range 200 {
		put(t, o, fmt.Sprint(i, big))
	}
	var disk int64
	files, err := segmentFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		disk += st.Size()
	}
	if disk > c.MaxBytes {
		t.Errorf("%d bytes on disk, allowed %d", disk, c.MaxBytes)
	}
	o = open(t, dir, c)
	s := o.Stats()
	got := drain(t, o)
	if len(got) != s.Waiting || len(got) < 20 || got[len(got)-1] != fmt.Sprint(199, big) {
		t.Errorf("%d left, waiting %d", len(got), s.Waiting)
	}
	if files, err = segmentFiles(dir); err != nil || len(files) != 1 {
		t.Errorf("%d segments after draining, %v", len(files), err)
	}
}

func TestTooLarge(t *testing.T) {
	o := open(t, t.TempDir(), Config{})
	big := make([]byte, wire.MaxMessage+1)
	if err := o.Put("a", big); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("Put: %v", err)
	}
	if err := o.Latest("a", big); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("Latest: %v", err)
	}
	if err := o.Put("a", big[1:]); err != nil {
		t.Error(err)
	}
	equal(t, drain(t, o), []string{string(big[1:])})
}

// The file size limit of the process stands for a full disk: a write fails
// halfway.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	o := open(t, dir, Config{MaxMemory: 300})
	put(t, o, "message 0")
	failed := limitFileSize(t, 200)
	for _, m := range numbers(1, 50) {
		put(t, o, m)
	}
	if o.Problem() == nil {
		t.Fatal("no problem reported")
	}
	s := o.Stats()
	if s.Memory == 0 || s.Dropped == 0 || int64(s.Memory*len("a/topicmessage 10")) > 300 {
		t.Errorf("%+v", s)
	}
	failed() // room again
	put(t, o, "message 50")
	if err := o.Problem(); err != nil {
		t.Errorf("problem stays: %v", err)
	}
	if s := o.Stats(); s.Memory != 0 {
		t.Errorf("%d still in memory", s.Memory)
	}
	got := drain(t, open(t, dir, Config{}))
	if len(got) != s.Waiting+1 || got[0] != "message 0" || !slices.Equal(got[len(got)-10:], numbers(41, 51)) {
		t.Errorf("got %q", got)
	}
}

func limitFileSize(t *testing.T, n uint64) (restore func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Skipf("no file size limit here: %v", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: n, Max: old.Max}); err != nil {
		t.Skipf("no file size limit here: %v", err)
	}
	var once sync.Once
	restore = func() {
		once.Do(func() {
			if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(restore)
	return restore
}

func TestLatestCoalesces(t *testing.T) {
	o := open(t, t.TempDir(), Config{})
	for i := range 3 {
		if err := o.Latest("state", fmt.Append(nil, "state ", i)); err != nil {
			t.Fatal(err)
		}
		put(t, o, fmt.Sprint("event ", i))
	}
	equal(t, drain(t, o), []string{"state 2", "event 0", "event 1", "event 2"})
	equal(t, drain(t, o), nil)
	o.Resend()
	equal(t, drain(t, o), []string{"state 2"})
}

func TestLatestChangedWhileSending(t *testing.T) {
	o := open(t, t.TempDir(), Config{})
	latest := func(s string) {
		t.Helper()
		if err := o.Latest("state", []byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	latest("old")
	if _, err := o.step(t.Context(), func(context.Context, string, []byte) error { latest("new"); return nil }); err != nil {
		t.Fatal(err)
	}
	equal(t, drain(t, o), []string{"new"})
}

// Run keeps the order through failures, and a message that is put while it
// pauses wakes it.
func TestRunThroughFailures(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o := open(t, dir, Config{})
		var mu sync.Mutex
		var got []string
		up := false
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- o.Run(ctx, func(_ context.Context, _ string, p []byte) error {
				mu.Lock()
				defer mu.Unlock()
				if !up {
					return errors.New("not connected")
				}
				got = append(got, string(p))
				return nil
			})
		}()
		for _, m := range numbers(0, 5) {
			put(t, o, m)
		}
		time.Sleep(5 * time.Minute)
		mu.Lock()
		equal(t, got, nil)
		up = true
		mu.Unlock()
		time.Sleep(maxPause + time.Second)
		mu.Lock()
		equal(t, got, numbers(0, 5))
		got = nil
		mu.Unlock()
		put(t, o, "message 5")
		synctest.Wait()
		mu.Lock()
		equal(t, got, numbers(5, 6))
		mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func FuzzOpenSegment(f *testing.F) {
	good := append([]byte(magic), encodeRecord(1, "a/topic", []byte("payload"))...)
	good = append(good, encodeRecord(2, "", nil)...)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add([]byte(magic))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := os.MkdirTemp(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(d) }()
		if err := os.WriteFile(segmentPath(d, 1), b, 0o600); err != nil {
			t.Fatal(err)
		}
		o := open(t, d, Config{})
		put(t, o, "new")
		got := drain(t, o)
		if len(got) == 0 || got[len(got)-1] != "new" {
			t.Errorf("the new message is lost: %q", got)
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
}
