package story

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/test/tinymodel"
)

// children are the processes that a process has started and that live.
func children(t *testing.T, parent int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent …; the name may hold anything.
		rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		if len(rest) > 1 && rest[0] != "Z" && rest[1] == strconv.Itoa(parent) {
			out = append(out, pid)
		}
	}
	return out
}

// gone says whether a process has ended, or is only waited for.
func gone(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return len(rest) > 0 && rest[0] == "Z"
}

// The daemon is killed at any moment of an update, ten times: each time no
// child outlives it, it comes back and answers at once by a release that was
// committed, and the update ends committed.
func TestPowerCutsDuringUpdatesCostNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	last := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", last)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 10 {
		next := w.release(tinymodel.Options{Name: "round " + strconv.Itoa(round), Padding: 150_000})
		ro := w.rollOut(next.Path)
		d.shows("the update under way", func(s statuspage.Snapshot) bool { return s.State.Update.Release == next.Path })
		// An update takes one to two seconds here.
		time.Sleep(time.Duration(rng.Int64N(int64(1500 * time.Millisecond))))
		left := children(t, d.cmd.Process.Pid)
		s, _ := d.snapshot()
		d.kill()
		if len(left) < 2 {
			t.Errorf("round %d: only %d children", round, len(left))
		}
		for _, pid := range left {
			eventually(t, "child "+strconv.Itoa(pid)+" ends with its parent", func() bool { return gone(pid) })
		}
		d.start()
		d.shows("answers after the cut", func(s statuspage.Snapshot) bool {
			return (s.Model.Release == last.Path || s.Model.Release == next.Path) && s.Model.Results > 0
		})
		w.rolloutIs(ro.ID, rollout.Done)
		d.answers(next.Path)
		t.Logf("round %d: killed in %s", round, s.State.Update.State)
		if n := w.count("gate-1", ended(next.Path, wire.Committed)); n > 1 {
			t.Errorf("round %d: committed %d times", round, n)
		}
		last = next
	}
}

// A device whose disk is full refuses the update for that, answers on, keeps
// its events, and takes the update when there is room.
func TestAFullDiskStopsTheUpdateAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := makeDevice(t, "gate-1")
	state := filepath.Join(d.dir, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("drover-story", state, "tmpfs", 0, "size=6m,mode=700"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { // after the daemon has ended: cleanups run last to first
		if err := unix.Unmount(state, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	d.write("enrolment-token", w.token(time.Hour).String())
	d.configure(cameras("door", folder(pictures(t))))
	d.start()
	w.rolloutIs(w.rollOut(v1.Path).ID, rollout.Done)
	d.answers(v1.Path)

	v2 := w.release(tinymodel.Options{Name: "two", Padding: 2_000_000})

	t.Log("room for metadata, not for the model")
	brim := filepath.Join(state, "brim")
	fillUp(t, brim, 800_000)
	ro := w.rollOut(v2.Path)
	e := w.event("gate-1", "refused", ended(v2.Path, wire.Refused))
	if e.Reason != wire.ReasonSpace {
		t.Errorf("refused for %q: %s", e.Reason, e.Message)
	}
	t.Logf("%s", e.Message)
	w.rolloutIs(ro.ID, rollout.Halted)
	d.goesOn(v1.Path)

	t.Log("no room for anything")
	fillUp(t, brim, 0)
	ro = w.rollOut(v2.Path)
	d.shows("that it cannot write", func(s statuspage.Snapshot) bool { return s.Outbox.Problem != "" && s.Outbox.Dropped == 0 })
	w.event("gate-1", "the metadata cannot be stored", complained(wire.ReasonSpace))
	d.goesOn(v1.Path)

	t.Log("a restart without room")
	d.kill()
	d.start()
	d.goesOn(v1.Path)
	w.event("gate-1", "the metadata cannot be stored, still", complained(wire.ReasonSpace))

	t.Log("room again")
	if err := os.Remove(brim); err != nil {
		t.Fatal(err)
	}
	w.rolloutIs(ro.ID, rollout.Done)
	d.answers(v2.Path)
	w.event("gate-1", "committed", ended(v2.Path, wire.Committed))
	d.shows("that it can write", func(s statuspage.Snapshot) bool { return s.Outbox.Problem == "" })
}

// fillUp writes a file until no more than so many bytes are free.
func fillUp(t *testing.T, path string, free uint64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		if st.Bavail*uint64(st.Bsize) <= free {
			return
		}
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
