package inbox

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/bundle"
	"github.com/droverhq/drover/ota/fetch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// judgeFake stands for verifier and updater: both have tests of their own.
type judgeFake struct {
	refuse   map[string]error // by release
	standing Standing
	why      error
	judged   []string
	offers   int
}

func (d *judgeFake) Judge(b *bundle.Bundle, r io.ReaderAt) (Target, error) {
	d.judged = append(d.judged, b.Head.Release)
	if err := d.refuse[b.Head.Release]; err != nil {
		return Target{}, err
	}
	if _, err := b.ReadBlob(r, b.Head.Manifest, wire.MaxManifest); err != nil {
		return Target{}, err
	}
	return Target{Plan: "p", Release: b.Head.Release, Digest: b.Head.Manifest}, nil
}

func (d *judgeFake) Offer(*bundle.Bundle) { d.offers++ }

func (d *judgeFake) Standing(Target) (Standing, error) { return d.standing, d.why }

// rig is an inbox whose clock is the test's.
type rig struct {
	*Inbox
	t      *testing.T
	dir    string
	now    time.Time
	device judgeFake
	mu     sync.Mutex
	events []wire.Event
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, dir: filepath.Join(t.TempDir(), "inbox"), now: time.Now()}
	c := Config{Dir: r.dir, Device: &r.device, Patience: time.Minute, OnEvent: func(e wire.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	}}
	if change != nil {
		change(&c)
	}
	in, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r.Inbox = in
	return r
}

// look scans now, and again when everything has settled.
func (r *rig) look(after time.Duration) {
	r.t.Helper()
	r.scan(r.t.Context(), r.now)
	r.now = r.now.Add(after)
	r.scan(r.t.Context(), r.now)
}

func (r *rig) said() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.events {
		b.WriteString(string(e.Reason) + "|" + e.Message + "\n")
	}
	r.events = nil
	return b.String()
}

func (r *rig) put(name string, b []byte) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), b, 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) has(name string) bool {
	_, err := os.Lstat(filepath.Join(r.dir, name))
	return err == nil
}

// pack builds a bundle of a release with a model of some chunks.
func pack(t testing.TB, version, created int) ([]byte, wire.BlobRef) {
	t.Helper()
	manifest := []byte(`{"v":1,"n":` + string(rune('0'+version)) + `}`)
	model := bytes.Repeat([]byte{byte(version), 7, 9}, 70_000)
	blob := func(b []byte) bundle.Blob {
		return bundle.Blob{Digest: wire.NewBlobRef(b).Digest, Size: int64(len(b)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
	}
	c := bundle.Content{
		Head: bundle.Head{V: 1, Fleet: "barn", Release: wire.ReleasePath("gate", version), Manifest: wire.NewBlobRef(manifest).Digest, Created: int64(created), Expires: 9},
		Metadata: []bundle.Metadata{
			{Role: wire.RoleRoot, Version: 1, Raw: []byte("{}")}, {Role: wire.RoleTargets, Version: 1, Raw: []byte("{}")},
			{Role: wire.RoleModels, Version: 1, Raw: []byte("{}")}, {Role: wire.RoleRollouts, Version: 1, Raw: []byte("{}")},
		},
		Current: []byte("{}"), Blobs: []bundle.Blob{blob(manifest), blob(model)},
	}
	var b bytes.Buffer
	if err := bundle.Write(&b, &c); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), wire.NewBlobRef(model)
}

func TestAFileIsTakenAndDone(t *testing.T) {
	r := newRig(t, nil)
	raw, ref := pack(t, 1, 1)
	r.put("a.drover", raw)
	r.look(time.Second)
	if r.device.offers == 0 || !strings.Contains(r.said(), "is whole and well signed: it brings release/gate/1") {
		t.Fatal("not taken")
	}
	if got := read(t, r, ref, 0, 1, 2, 3); got != 4 {
		t.Errorf("%d chunks", got)
	}
	r.device.standing = Done
	r.look(time.Second)
	if !r.has("done/a.drover") || r.has("a.drover") || !strings.Contains(r.said(), "is done with") {
		t.Error("not done")
	}
	if err := r.Source().Read(t.Context(), ref, []int{0}, nil); !errors.Is(err, fetch.ErrAbsent) {
		t.Errorf("still a source: %v", err)
	}
}

// read gives how many chunks came, all of them right.
func read(t *testing.T, r *rig, ref wire.BlobRef, chunks ...int) int {
	t.Helper()
	n := 0
	err := r.Source().Read(t.Context(), ref, chunks, func(i int, b []byte) {
		if !ref.CheckChunk(i, b) {
			t.Errorf("chunk %d is wrong", i)
		}
		n++
	})
	if (err == nil) != (n == len(chunks)) {
		t.Errorf("%d of %d chunks, %v", n, len(chunks), err)
	}
	return n
}

// TestHalfCopies: a copy cut anywhere waits, is taken when it becomes whole, and
// is refused when it does not.
func TestHalfCopies(t *testing.T) {
	raw, _ := pack(t, 1, 1)
	cuts := []int{0, 1, 511, 512, 1000, 5000, len(raw) - 1025, len(raw) - 1024, len(raw) - 512, len(raw) - 1}
	for n := 3000; n < len(raw); n += len(raw) / 20 {
		cuts = append(cuts, n)
	}
	for _, n := range cuts {
		for name, half := range map[string][]byte{"cut": raw[:n], "zeros": append(bytes.Clone(raw[:n]), make([]byte, len(raw)-n)...)} {
			if bytes.Equal(half, raw) {
				continue
			}
			r := newRig(t, nil)
			r.put("a.drover", half)
			r.look(time.Second)
			r.look(50 * time.Second)
			if len(r.device.judged) > 0 || r.said() != "" {
				t.Fatalf("%s at %d: not waited for", name, n)
			}
			r.put("a.drover", raw)
			r.look(time.Second)
			if len(r.device.judged) != 1 {
				t.Fatalf("%s at %d: not taken when whole", name, n)
			}
			r = newRig(t, nil)
			r.put("a.drover", half)
			r.look(time.Second)
			r.look(61 * time.Second)
			if said := r.said(); !r.has("a.drover.refused") || !r.has("a.drover.reason") || r.has("a.drover") || !strings.Contains(said, "is refused") {
				t.Fatalf("%s at %d: not refused: %s", name, n, said)
			}
		}
	}
}

// A file that grows is not looked into before it rests, however long it takes,
// also when it gets its name in the middle.
func TestGrowingAndRenamed(t *testing.T) {
	r := newRig(t, nil)
	raw, _ := pack(t, 1, 1)
	r.put("a.tmp", raw[:100])
	r.look(time.Hour)
	for n := 100; n < len(raw)-100; n += len(raw) / 10 {
		if r.has("a.tmp") && n > len(raw)/2 {
			if err := os.Rename(filepath.Join(r.dir, "a.tmp"), filepath.Join(r.dir, "a.drover")); err != nil {
				t.Fatal(err)
			}
		}
		name := "a.drover"
		if n <= len(raw)/2 {
			name = "a.tmp"
		}
		r.put(name, raw[:n])
		r.look(300 * time.Millisecond)
	}
	if len(r.device.judged) > 0 || r.said() != "" {
		t.Fatal("looked into while it grew")
	}
	r.put("a.drover", raw)
	r.look(time.Second)
	if len(r.device.judged) != 1 {
		t.Fatal("not taken")
	}
}

// Of two bundles the one that was made later is offered last, so that it counts.
func TestTwoAtOnce(t *testing.T) {
	r := newRig(t, nil)
	one, ref1 := pack(t, 1, 1)
	two, ref2 := pack(t, 2, 2)
	r.put("a.drover", two)
	r.put("b.drover", one)
	r.look(time.Second)
	if got := strings.Join(r.device.judged, " "); got != "release/gate/1 release/gate/2" {
		t.Errorf("order: %s", got)
	}
	if read(t, r, ref1, 0) != 1 || read(t, r, ref2, 3) != 1 {
		t.Error("not both are sources")
	}
}

// A damaged blob costs its file; another file with the same blob serves.
func TestDamageAfterTheCheck(t *testing.T) {
	r := newRig(t, nil)
	raw, ref := pack(t, 1, 1)
	r.put("a.drover", raw)
	r.put("b.drover", raw)
	r.look(time.Second)
	bad := bytes.Clone(raw)
	bad[len(bad)-3000] ^= 1
	if err := os.WriteFile(filepath.Join(r.dir, "a.drover"), bad, 0o600); err != nil {
		t.Fatal(err)
	}
	if n := read(t, r, ref, 0, 1, 2, 3); n != 4 {
		t.Errorf("%d chunks with one good file", n)
	}
	if err := os.Remove(filepath.Join(r.dir, "b.drover")); err != nil {
		t.Fatal(err)
	}
	if n := read(t, r, ref, 0, 1, 2); n != 3 {
		t.Errorf("%d right chunks of the damaged file", n)
	}
	if n := read(t, r, ref, 3); n != 0 {
		t.Error("a damaged chunk was given")
	}
}

func TestRefusalsByName(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		want   string
		offers int
	}{
		"expired":      {&ota.Refusal{Reason: wire.ReasonExpired, Message: "ended"}, "expired|", 0},
		"rollback":     {&ota.Refusal{Reason: wire.ReasonRollback, Message: "older"}, "rollback|", 0},
		"wrong fleet":  {&ota.Refusal{Reason: wire.ReasonSignature, Message: "another fleet"}, "signature|", 0},
		"wrong device": {&ota.Refusal{Reason: wire.ReasonPlan, Message: "no plan"}, "plan|", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			raw, _ := pack(t, 1, 1)
			r.device.refuse = map[string]error{"release/gate/1": c.err}
			r.put("a.drover", raw)
			r.look(time.Second)
			if said := r.said(); !strings.HasPrefix(said, c.want) || !r.has("a.drover.refused") || r.device.offers != c.offers {
				t.Errorf("%q, %d offers", said, r.device.offers)
			}
			reason, err := os.ReadFile(filepath.Join(r.dir, "a.drover.reason"))
			if err != nil || !strings.Contains(string(reason), c.err.Error()) {
				t.Errorf("reason %q, %v", reason, err)
			}
		})
	}
}

// Links, pipes, folders and files of other names are nothing to the inbox, and
// links cannot lead its own writing astray.
func TestHostileFolder(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Keep = 1 })
	raw, _ := pack(t, 1, 1)
	outside := t.TempDir()
	target := filepath.Join(outside, "x.drover")
	if err := os.WriteFile(target, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, do := range []error{
		os.Symlink(target, filepath.Join(r.dir, "link.drover")), os.Mkdir(filepath.Join(r.dir, "dir.drover"), 0o700),
		os.Symlink(outside, filepath.Join(r.dir, "done")), os.Symlink(target, filepath.Join(r.dir, "a.drover.reason")),
	} {
		if do != nil {
			t.Fatal(do)
		}
	}
	r.put(".hidden.drover", raw)
	r.put("plain.txt", raw)
	r.look(time.Second)
	if len(r.device.judged) > 0 {
		t.Fatalf("looked into %v", r.device.judged)
	}
	r.put("b.drover", raw)
	r.device.standing = Done
	r.look(time.Second) // done leads out of the inbox: the file stays
	if list, err := os.ReadDir(outside); err != nil || len(list) != 1 || !r.has("b.drover") {
		t.Errorf("moved through a link: %v %v", list, err)
	}
	r.device.refuse = map[string]error{"release/gate/1": &ota.Refusal{Reason: wire.ReasonExpired, Message: "ended"}}
	r.put("a.drover", raw)
	r.look(time.Second)
	if b, err := os.ReadFile(target); err != nil || !bytes.Equal(b, raw) {
		t.Error("written through a link")
	}
}

// Of what is done and refused the newest few stay.
func TestOldFilesAreRemoved(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Keep = 2 })
	for v := range 5 {
		raw, _ := pack(t, v+1, v)
		name := string(rune('a'+v)) + ".drover"
		r.device.standing = Pending
		if v%2 == 1 {
			r.device.refuse = map[string]error{wire.ReleasePath("gate", v+1): &ota.Refusal{Reason: wire.ReasonExpired, Message: "ended"}}
		}
		r.put(name, raw)
		r.device.standing = Done
		r.look(time.Second)
	}
	for name, want := range map[string]bool{
		"done/a.drover": false, "done/c.drover": true, "done/e.drover": true, "b.drover.refused": true, "d.drover.refused": true, "d.drover.reason": true,
	} {
		if r.has(name) != want {
			t.Errorf("%s: there is %v", name, !want)
		}
	}
	r.device.refuse = map[string]error{"release/gate/9": &ota.Refusal{Reason: wire.ReasonExpired, Message: "ended"}}
	raw, _ := pack(t, 9, 9)
	r.put("z.drover", raw)
	r.look(time.Second)
	if r.has("b.drover.refused") || r.has("b.drover.reason") || !r.has("z.drover.refused") {
		t.Error("the oldest refused one is still there")
	}
}

// A stick is read and never written; one that is pulled is told.
func TestStick(t *testing.T) {
	media := t.TempDir()
	r := newRig(t, func(c *Config) { c.Media = []string{media, filepath.Join(media, "nowhere")} })
	raw, ref := pack(t, 1, 1)
	stick := filepath.Join(media, "KEY", "drover")
	if err := os.MkdirAll(stick, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(stick, "a.drover")
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	r.look(time.Second)
	if read(t, r, ref, 0) != 1 {
		t.Fatal("no source")
	}
	if err := os.RemoveAll(filepath.Join(media, "KEY")); err != nil {
		t.Fatal(err)
	}
	r.said()
	r.look(time.Second)
	if said := r.said(); !strings.Contains(said, "is gone before its release was active") {
		t.Errorf("said %q", said)
	}
	if err := os.MkdirAll(stick, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o444); err != nil {
		t.Fatal(err)
	}
	r.device.standing = Done
	r.look(time.Second)
	r.look(time.Hour)
	if n := strings.Count(r.said(), "is done with"); n != 1 {
		t.Errorf("told %d times", n)
	}
	if list, err := os.ReadDir(stick); err != nil || len(list) != 1 {
		t.Errorf("the stick was written: %v %v", list, err)
	}
}

// TestPrime: before anything is judged, what is there is a source.
func TestPrime(t *testing.T) {
	r := newRig(t, nil)
	raw, ref := pack(t, 1, 1)
	r.put("a.drover", raw)
	r.put("b.drover", raw[:700])
	r.Prime(t.Context())
	if read(t, r, ref, 0, 1) != 2 || len(r.device.judged) > 0 {
		t.Error("no source before the first look")
	}
}

// TestRun watches a real folder.
func TestRun(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Quiet, c.Poll = 50*time.Millisecond, time.Hour })
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	raw, _ := pack(t, 1, 1)
	var said string
	for end := time.Now().Add(20 * time.Second); !strings.Contains(said, "it brings release/gate/1"); time.Sleep(20 * time.Millisecond) {
		if said == "" && !r.has("a.drover") {
			r.put("a.drover", raw[:len(raw)/2])
			r.put("a.drover", raw)
		}
		if said += r.said(); time.Now().After(end) {
			t.Fatal("nobody looked")
		}
	}
}
