// Package kill runs the built programs through updates and kills the daemon in
// the midst of them: at any moment, and at any system call that touches its
// files. Each time no child outlives it, it comes back, answers frames at once
// by a release that was committed or is on trial, and the update ends
// committed.
package kill

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/test/programs"
	"github.com/droverhq/drover/test/soak/rig"
)

var (
	rounds = flag.Int("rounds", 6, "how often the daemon is killed")
	seed   = flag.Uint64("seed", 0, "of the moments; 0: another one each time")
	built  string
)

func TestMain(m *testing.M) {
	cage.Main()
	flag.Parse()
	os.Exit(programs.Run(m, &built, "droverd", "drover-camera", "drover-infer"))
}

// calls are the system calls by which the daemon, and none of its children,
// changes files, with how many of each one thread makes in an update, about.
var calls = []struct {
	name string
	many int
}{
	{"fsync", 25}, {"renameat", 12}, {"pwrite64", 16}, {"unlinkat", 4},
}

func TestKilledDuringUpdates(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *seed)
	rng := rand.New(rand.NewPCG(*seed, 0))
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is not installed: .ci/setup test installs it")
	}

	f := rig.New(t, built)
	last := f.Release("zero", 150_000)
	d := f.Device("gate-1")
	f.Enroll(d)
	d.Start()
	f.RollOut(last)
	rig.Eventually(t, "the first release", func() bool { return d.Committed(last) })

	began := time.Now()
	var count struct{ moment, call, late, committed int }
	for round := range *rounds {
		next := f.Release(fmt.Sprint("round ", round), 150_000)
		var ro registry.Rollout
		how := ""
		update := func() { ro = f.RollOut(next) }
		if round%2 == 0 {
			update()
			rig.Eventually(t, "the update under way", func() bool { s, _ := d.Snapshot(); return s.State.Update.Release == next })
			time.Sleep(time.Duration(rng.Int64N(int64(1500 * time.Millisecond))))
			s, _ := d.Snapshot()
			how = "killed in " + string(s.State.Update.State)
			d.Kill()
			count.moment++
		} else {
			c := calls[rng.IntN(len(calls))]
			n := 1 + rng.IntN(c.many)
			how = fmt.Sprintf("killed at %s %d", c.name, n)
			if killedAt(t, strace, d, c.name, n, update, func() bool { return d.Committed(next) }) {
				count.call++
			} else {
				how = fmt.Sprintf("no %s %d, killed after the update", c.name, n)
				count.late++ // the update was over before: an unwanted end between updates
				d.Kill()
			}
		}
		d.Start()
		rig.Eventually(t, "answers after the kill", func() bool { return d.Answers(last, next) })
		rig.Eventually(t, "committed after the kill", func() bool { return d.Committed(next) })
		count.committed++
		last = next
		t.Logf("round %d: %s", round, how)
		rig.Eventually(t, "the end of the rollout", func() bool { return f.State(ro.ID) == rollout.Done })
	}
	fmt.Printf("kill rounds=%d random=%d syscall=%d between=%d committed=%d seconds=%.0f\n",
		*rounds, count.moment, count.call, count.late, count.committed, time.Since(began).Seconds())
}

// killedAt lets strace kill the daemon at the n-th call of a kind that one of
// its threads makes from now on. It is false when the update is over without.
func killedAt(t *testing.T, strace string, d *rig.Device, call string, n int, update func(), over func() bool) bool {
	t.Helper()
	cmd := exec.Command(strace, "-f", "-qq", "-o", "/dev/null", "-p", strconv.Itoa(d.PID()),
		"-e", "trace="+call, "--inject="+call+":signal=SIGKILL:when="+strconv.Itoa(n))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt) // it lets go of the daemon, or has ended with it
		// It has been seen to wait for ever; without it the kernel lets go.
		stuck := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		defer stuck.Stop()
		_ = cmd.Wait()
	}()
	update()
	var children []int
	for end := time.Now().Add(rig.Patience); d.Alive() && !over() && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c := rig.Children(d.PID()); len(c) > 0 {
			children = c
		}
	}
	if d.Alive() {
		return false
	}
	d.Died(children)
	return true
}
