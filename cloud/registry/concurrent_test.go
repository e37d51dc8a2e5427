package registry

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// writerEnv makes the test binary a second process that writes to the registry
// in that folder until it is killed.
const writerEnv = "DROVER_REGISTRY_TEST_WRITER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(writerEnv); dir != "" {
		os.Exit(writeForEver(dir))
	}
	goleak.VerifyTestMain(m)
}

// handles opens one folder n times, as n processes would, all at once.
func handles(t *testing.T, n int) []*Registry {
	t.Helper()
	dir, c := t.TempDir(), &clock{t: start}
	out := make([]*Registry, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range out {
		wg.Go(func() { out[i], errs[i] = OpenWith(t.Context(), dir, Options{Now: c.now}) })
	}
	wg.Wait()
	check(t, errors.Join(errs...))
	t.Cleanup(func() {
		for _, r := range out {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return out
}

// race runs do on every handle at once, times times each, and counts successes.
// Errors other than allowed fail the test.
func race(t *testing.T, rs []*Registry, times int, allowed error, do func(r *Registry, who string) error) (won []string) {
	t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, r := range rs {
		for j := range times {
			who := fmt.Sprintf("%d-%d", i, j)
			wg.Go(func() {
				err := do(r, who)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won = append(won, who)
				case !errors.Is(err, allowed):
					t.Errorf("%s: %v", who, err)
				}
			})
		}
	}
	wg.Wait()
	return won
}

func TestLeaseGoesToOne(t *testing.T) {
	rs := handles(t, 4)
	ctx := t.Context()
	won := race(t, rs, 4, ErrLeaseHeld, func(r *Registry, who string) error {
		_, err := r.AcquireLease(ctx, nasty, who, time.Minute)
		return err
	})
	if len(won) != 1 {
		t.Fatalf("%v hold the lease", won)
	}
	if l := must(rs[3].Lease(ctx, nasty))(t); l.Holder != won[0] || l.Term != 1 || l.Until != start.Add(time.Minute) {
		t.Errorf("%+v", l)
	}
}

func TestLeaseInTime(t *testing.T) {
	r, c := openTest(t)
	ctx := t.Context()
	a := must(r.AcquireLease(ctx, "pub", "a", time.Minute))(t)
	_, err := r.AcquireLease(ctx, "pub", "b", time.Minute)
	wantErr(t, err, ErrLeaseHeld, "pub")
	c.t = c.t.Add(30 * time.Second)
	if again := must(r.AcquireLease(ctx, "pub", "a", time.Minute))(t); again.Term != a.Term || again.Until != c.t.Add(time.Minute) {
		t.Errorf("renewed %+v", again)
	}
	a = must(r.RenewLease(ctx, a, time.Minute))(t)
	check(t, r.PublishMetadata(ctx, &a, Metadata{Role: "timestamp", Version: 1, Bytes: []byte("x")}))
	c.t = c.t.Add(time.Minute)
	_, err = r.Lease(ctx, "pub")
	wantErr(t, err, ErrNotFound, "nobody")
	err = r.PublishMetadata(ctx, &a, Metadata{Role: "timestamp", Version: 2, Bytes: []byte("x")})
	wantErr(t, err, ErrLeaseHeld, "lapsed")
	b := must(r.AcquireLease(ctx, "pub", "b", time.Minute))(t)
	if b.Term != a.Term+1 {
		t.Errorf("term %d after %d", b.Term, a.Term)
	}
	_, err = r.RenewLease(ctx, a, time.Minute)
	wantErr(t, err, ErrLeaseHeld, "pub")
	check(t, r.ReleaseLease(ctx, a)) // not the holder: nothing happens
	if l := must(r.Lease(ctx, "pub"))(t); l.Holder != "b" {
		t.Errorf("%+v", l)
	}
	check(t, r.ReleaseLease(ctx, b))
	if l := must(r.AcquireLease(ctx, "pub", "a", time.Minute))(t); l.Term != b.Term+1 {
		t.Errorf("term %d after %d", l.Term, b.Term)
	}
}

func TestTokenIsConsumedOncePerUse(t *testing.T) {
	rs := handles(t, 4)
	ctx := t.Context()
	hash := strings.Repeat("a1", 32)
	check(t, rs[0].CreateToken(ctx, Token{Hash: hash, Expires: start.Add(time.Hour), UsesLeft: 3, Labels: map[string]string{nasty: nasty}}))
	won := race(t, rs, 4, ErrTokenSpent, func(r *Registry, who string) error {
		_, err := r.ConsumeToken(ctx, hash, who+nasty)
		return err
	})
	if len(won) != 3 {
		t.Fatalf("%d uses of 3", len(won))
	}
	all := must(rs[1].Tokens(ctx))(t)
	if len(all) != 1 || all[0].UsesLeft != 0 || len(all[0].UsedBy) != 3 || all[0].Labels[nasty] != nasty {
		t.Errorf("%+v", all)
	}
	wantErr(t, rs[0].CreateToken(ctx, Token{Hash: hash, Expires: start.Add(time.Hour), UsesLeft: 3}), ErrImmutable, "token")
	_, err := rs[0].ConsumeToken(ctx, strings.Repeat("b", 64), "d")
	wantErr(t, err, ErrNotFound, "drover enroll")
}

func TestTokenExpires(t *testing.T) {
	r, c := openTest(t)
	ctx := t.Context()
	hash := strings.Repeat("a1", 32)
	check(t, r.CreateToken(ctx, Token{Hash: hash, Expires: start.Add(time.Hour), UsesLeft: 1}))
	c.t = start.Add(time.Hour)
	_, err := r.ConsumeToken(ctx, hash, "d")
	wantErr(t, err, ErrTokenLapsed, "2026-03-01T13:00:00Z")
	if all := must(r.Tokens(ctx))(t); all[0].UsesLeft != 1 || len(all[0].UsedBy) != 0 {
		t.Errorf("a refusal took a use: %+v", all)
	}
}

func TestManyWritersLoseNothing(t *testing.T) {
	rs := handles(t, 4)
	ctx := t.Context()
	b := must(rs[0].PutBytes(ctx, []byte("TFL3")))(t)
	check(t, rs[0].UpsertDevice(ctx, Device{ID: "d", Shard: "a"}))
	addRelease(t, rs[0], "p")
	must(rs[0].AddRollout(ctx, Rollout{ID: "r", Release: "p", State: "running", Plan: json.RawMessage(`{"n":0}`)}))(t)

	race(t, rs, 5, nil, func(r *Registry, who string) error { // versions without gap or double
		_, err := r.AddModel(ctx, Model{Name: "many", TFLite: b.Digest, Dataset: who})
		return err
	})
	ms := must(rs[0].Models(ctx, "many"))(t)
	seen := map[string]bool{}
	for i, m := range ms {
		seen[m.Dataset] = true
		if m.Version != 20-i {
			t.Errorf("version %d at %d", m.Version, i)
		}
	}
	if len(seen) != 20 {
		t.Errorf("%d models of 20", len(seen))
	}

	race(t, rs, 5, nil, func(r *Registry, _ string) error { // no lost update
		_, err := r.UpdateRollout(ctx, "r", func(ro *Rollout) error {
			var plan struct{ N int }
			err := json.Unmarshal(ro.Plan, &plan)
			ro.Plan = fmt.Appendf(nil, `{"n":%d}`, plan.N+1)
			return err
		})
		return err
	})
	if ro := must(rs[1].Rollout(ctx, "r"))(t); string(ro.Plan) != `{"n":20}` {
		t.Errorf("plan %s after 20 steps", ro.Plan)
	}

	added := race(t, rs, 5, errSeen, func(r *Registry, _ string) error { // delivered 20 times
		ok, err := r.AddEvent(ctx, Event{Device: "d", Boot: "b", Seq: 1, Kind: "k"})
		if err == nil && !ok {
			return errSeen
		}
		return err
	})
	if len(added) != 1 {
		t.Errorf("one event was added %d times", len(added))
	}

	accepted := race(t, rs, 1, ErrImmutable, func(r *Registry, who string) error {
		return r.AppendMetadata(ctx, "timestamp", 7, []byte(who))
	})
	if len(accepted) != 1 {
		t.Errorf("version 7 was given out by %v", accepted)
	}

	race(t, rs, 5, nil, func(r *Registry, _ string) error { // the same bytes by many
		_, err := r.PutBytes(ctx, []byte("all write this"))
		return err
	})
	before := must(rs[0].ChangeCounter(ctx))(t)
	check(t, rs[1].SetOnline(ctx, "d", true))
	if after := must(rs[0].ChangeCounter(ctx))(t); after != before+1 {
		t.Errorf("counter %d after %d", after, before)
	}
}

var errSeen = errors.New("seen")

// blobFile is where the bytes of a digest lie.
func blobFile(dir, digest string) string {
	return filepath.Join(dir, "blobs", "sha256", digest[:2], digest)
}

func TestDamagedBlobIsNoticedAndHealed(t *testing.T) {
	dir := t.TempDir()
	r := openAt(t, dir, &clock{t: start})
	ctx := t.Context()
	data := []byte("some bytes that matter")
	b := must(r.PutBytes(ctx, data))(t)
	path := blobFile(dir, b.Digest)
	for name, damage := range map[string]func() error{
		"other bytes": func() error { return os.WriteFile(path, []byte("some bytes that natter"), 0o600) },
		"cut":         func() error { return os.Truncate(path, 5) },
		"longer":      func() error { return os.WriteFile(path, append(data, 'x'), 0o600) },
		"gone":        func() error { return os.Remove(path) },
	} {
		check(t, damage())
		_, err := r.ReadBlob(ctx, b.Digest, 1000)
		wantErr(t, err, ErrCorrupt, b.Digest)
		if name == "other bytes" { // the size does not give it away
			check(t, os.Remove(path))
		}
		must(r.PutBytes(ctx, data))(t)
		if got := must(r.ReadBlob(ctx, b.Digest, 1000))(t); string(got) != string(data) {
			t.Errorf("%s: healed to %q", name, got)
		}
	}
	if n := leftovers(t, dir); n != 0 {
		t.Errorf("%d temporary files are left", n)
	}
}

type failingReader struct{ n int }

func (f *failingReader) Read(p []byte) (int, error) {
	if f.n <= 0 {
		return 0, errors.New("the line broke")
	}
	f.n -= len(p)
	return len(p), nil
}

func TestBrokenSourceLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	r := openAt(t, dir, &clock{t: start})
	for _, n := range []int{10, spoolAbove + 10} {
		if _, err := r.PutBlob(t.Context(), &failingReader{n}, Expect{}); err == nil || !strings.Contains(err.Error(), "the line broke") {
			t.Errorf("got %v", err)
		}
	}
	var blobs int
	check(t, r.store.reader.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM blobs`).Scan(&blobs))
	if blobs != 0 || leftovers(t, dir) != 0 {
		t.Errorf("%d rows, %d files", blobs, leftovers(t, dir))
	}
}

// leftovers counts temporary files among the blobs.
func leftovers(t *testing.T, dir string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*", "*.tmp"))
	check(t, err)
	return len(found)
}

func TestOpenSweepsOldTemporaryFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with [odd] *name?")
	r := must(Open(t.Context(), dir))(t)
	b := must(r.PutBytes(t.Context(), []byte("kept")))(t)
	check(t, r.Close())
	old, fresh := blobFile(dir, b.Digest)+".1.tmp", blobFile(dir, b.Digest)+".2.tmp"
	check(t, errors.Join(os.WriteFile(old, nil, 0o600), os.WriteFile(fresh, nil, 0o600)))
	yesterday := time.Now().Add(-25 * time.Hour)
	check(t, os.Chtimes(old, yesterday, yesterday))
	r = must(Open(t.Context(), dir))(t)
	defer func() { check(t, r.Close()) }()
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an old temporary file is still there: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("a file that may be in use is gone: %v", err)
	}
	if got := must(r.ReadBlob(t.Context(), b.Digest, 10))(t); string(got) != "kept" {
		t.Errorf("got %q", got)
	}
}

// writeForEver is the second process: it stores blobs, models and releases and
// says after each what is committed.
func writeForEver(dir string) int {
	ctx := context.Background()
	r, err := Open(ctx, dir)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	for i := 0; ; i++ {
		b, err := r.PutBytes(ctx, fmt.Appendf(nil, "%d %d %s", os.Getpid(), i, strings.Repeat("x", 100_000)))
		if err == nil {
			_, err = r.AddModel(ctx, Model{Name: "m", TFLite: b.Digest})
		}
		if err != nil {
			fmt.Println("error", err)
			return 1
		}
		fmt.Println(b.Digest)
	}
}

func TestKilledWritersLeaveItConsistent(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	var promised []string
	for round := range 5 {
		var wg sync.WaitGroup
		said := make([][]string, 2)
		for i := range said {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), writerEnv+"="+dir)
			out := must(cmd.StdoutPipe())(t)
			check(t, cmd.Start())
			wg.Go(func() {
				in := bufio.NewScanner(out)
				for n := 0; in.Scan(); n++ {
					said[i] = append(said[i], in.Text())
					if n == 3+round { // at another point each time, then let it run on into the kill
						_ = cmd.Process.Kill()
					}
				}
				_ = cmd.Wait() // killed
			})
		}
		wg.Wait()
		for _, lines := range said {
			if len(lines) == 0 {
				t.Fatal("a writer wrote nothing")
			}
			for _, l := range lines {
				if len(l) == 64 { // the last line may be cut by the kill
					promised = append(promised, l)
				} else if strings.HasPrefix(l, "error") {
					t.Fatal(l)
				}
			}
		}
	}
	r := must(Open(ctx, dir))(t)
	defer func() { check(t, r.Close()) }()
	for _, digest := range promised {
		must(r.ReadBlob(ctx, digest, 1<<20))(t)
	}
	ms := must(r.Models(ctx, "m"))(t)
	if len(ms) < len(promised) {
		t.Errorf("%d models, %d were promised", len(ms), len(promised))
	}
	for i, m := range ms {
		if m.Version != len(ms)-i {
			t.Errorf("version %d at place %d of %d", m.Version, i, len(ms))
		}
	}
	digests := must(list(ctx, r.store.reader, scanString, `SELECT digest FROM blobs`))(t)
	for _, d := range digests { // every row has its bytes, whole
		data := must(os.ReadFile(blobFile(dir, d)))(t)
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != d {
			t.Errorf("blob %s has other bytes", d)
		}
	}
	var verdict string
	check(t, r.store.reader.QueryRowContext(ctx, `PRAGMA integrity_check`).Scan(&verdict))
	if verdict != "ok" {
		t.Error(verdict)
	}
	t.Logf("%d promised, %d models, %d blobs, %d temporary files", len(promised), len(ms), len(digests), leftovers(t, dir))
}
