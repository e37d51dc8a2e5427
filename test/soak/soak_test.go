// Package soak lets a fleet live through one update after the other while
// daemons are killed, the broker restarts, the wire is cut and disks fill up.
// Every device must run every release in the end.
package soak

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/test/programs"
	"github.com/droverhq/drover/test/soak/rig"
)

var (
	limit   = flag.Duration("for", 20*time.Second, "no update begins after that")
	updates = flag.Int("updates", 1000, "at most so many updates")
	devices = flag.Int("devices", 3, "daemons")
	seed    = flag.Uint64("seed", 0, "of the harm; 0: another one each time")
	built   string
)

func TestMain(m *testing.M) {
	cage.Main()
	flag.Parse()
	os.Exit(programs.Run(m, &built, "droverd", "drover-camera", "drover-infer"))
}

// stateBytes is the room of a device for everything it keeps.
const stateBytes = 16 << 20

// soak is a fleet under harm.
type soak struct {
	*rig.Fleet
	t       *testing.T
	rng     *rand.Rand
	devices []*rig.Device
	full    bool // disks can be filled
}

// harm is one thing that goes wrong, and what ends it.
type harm struct {
	name string
	do   func(s *soak) (mend func())
}

var harms = []harm{
	{"none", func(*soak) func() { return func() {} }},
	{"kill", func(s *soak) func() { s.any().restart(); return func() {} }},
	{"kill-all", func(s *soak) func() {
		for _, d := range s.devices {
			device{d}.restart()
		}
		return func() {}
	}},
	{"broker", func(s *soak) func() { s.StopHub(); return s.StartHub }},
	{"partition", func(s *soak) func() { s.Wire.Cut(); return s.Wire.Mend }},
	{"drop", func(s *soak) func() { s.Wire.Drop(); return func() {} }},
	{"full-disk", func(s *soak) func() {
		if !s.full {
			s.Wire.Drop()
			return func() {}
		}
		brim := filepath.Join(s.any().Dir, "state", "brim")
		fillUp(s.t, brim)
		return func() {
			if err := os.Remove(brim); err != nil {
				s.t.Fatal(err)
			}
		}
	}},
}

type device struct{ *rig.Device }

func (d device) restart() { d.Kill(); d.Start() }

func (s *soak) any() device { return device{s.devices[s.rng.IntN(len(s.devices))]} }

func TestSoak(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d", *seed)
	s := &soak{Fleet: rig.New(t, built), t: t, rng: rand.New(rand.NewPCG(*seed, 0)), full: true}
	first := s.Release("zero", 150_000)
	for i := range *devices {
		d := s.Device(fmt.Sprint("gate-", i+1))
		s.bound(d)
		s.Enroll(d)
		d.Start()
		s.devices = append(s.devices, d)
	}
	s.converge(s.RollOut(first))
	begin := s.usage()

	began, done := time.Now(), 0
	suffered := map[string]int{}
	for ; done < *updates && (done == 0 || time.Since(began) < *limit); done++ {
		release := s.Release(fmt.Sprint("update ", done), 150_000)
		h := harms[(done+1)%len(harms)]
		if done >= len(harms) {
			h = harms[s.rng.IntN(len(harms))]
		}
		suffered[h.name]++
		ro := s.RollOut(release)
		time.Sleep(time.Duration(s.rng.Int64N(int64(time.Second))))
		mend := h.do(s)
		time.Sleep(time.Duration(s.rng.Int64N(int64(2 * time.Second))))
		mend()
		s.converge(ro)
	}
	t.Logf("harm: %v", suffered)
	t.Logf("at the beginning: %s", begin)
	t.Logf("at the end:       %s", s.usage())
	fmt.Printf("soak updates=%d devices=%d converged=%d of %d seconds=%.0f\n",
		done, len(s.devices), done*len(s.devices), done*len(s.devices), time.Since(began).Seconds())
	fmt.Printf("soak begin: %s\nsoak end:   %s\n", begin, s.usage())
}

// converge waits until every device has committed the release. A rollout that
// halted, since a device refused for a disk that was full, is begun again, as
// an operator does. It fails the test when a device does not follow.
func (s *soak) converge(ro registry.Rollout) {
	s.t.Helper()
	rig.Eventually(s.t, "all devices run "+ro.Release, func() bool {
		if s.State(ro.ID) == rollout.Halted {
			if next, ok := s.TryRollOut(ro.Release); ok {
				ro = next
			}
		}
		for _, d := range s.devices {
			if !d.Committed(ro.Release) {
				return false
			}
		}
		return true
	})
}

// usage says what hub and daemons hold.
func (s *soak) usage() string {
	runtime.GC() // the pushes of the test itself leave garbage behind
	debug.FreeOSMemory()
	hub := rig.UsageOf(os.Getpid())
	out := fmt.Sprintf("hub (in the test) %d MiB, %d files, %d goroutines", hub.RSS>>20, hub.Files, runtime.NumGoroutine())
	for _, d := range s.devices {
		u := rig.UsageOf(d.PID())
		out += fmt.Sprintf("; %s %d MiB, %d files, %d threads", d.Name, u.RSS>>20, u.Files, u.Threads)
	}
	return out
}

// bound gives a device a state folder of its own size.
func (s *soak) bound(d *rig.Device) {
	s.t.Helper()
	state := filepath.Join(d.Dir, "state")
	if err := unix.Mount("drover-soak", state, "tmpfs", 0, fmt.Sprintf("size=%d,mode=700", stateBytes)); err != nil {
		s.t.Logf("disks will not be full: a small file system cannot be mounted here: %v", err)
		s.full = false
		return
	}
	s.t.Cleanup(func() { // after the daemon has ended: cleanups run last to first
		if err := unix.Unmount(state, 0); err != nil {
			s.t.Errorf("unmount: %v", err)
		}
	})
}

// fillUp writes a file until nothing is free.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 4096); ; {
		if _, err := f.Write(block); errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
