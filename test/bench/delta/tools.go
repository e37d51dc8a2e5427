package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tool makes and applies deltas by files named base, target, delta, out.
type tool struct {
	name        string
	make, apply string
	other       bool // another tool, that ours is compared with
}

func tools(self string) []tool {
	return []tool{
		{"drover", self + " make base target delta", self + " apply base delta out", false},
		{"zstd -19 (no base)", "zstd -q -f -19 target -o delta", "zstd -q -f -d delta -o out", true},
		{"zstd -19 --patch-from", "zstd -q -f -19 --long=27 --patch-from=base target -o delta", "zstd -q -f -d --long=27 --patch-from=base delta -o out", true},
		{"bsdiff", "bsdiff base target delta", "bspatch base out delta", true},
		{"xdelta3 -9", "xdelta3 -q -f -e -9 -s base target delta", "xdelta3 -q -f -d -s base delta out", true},
	}
}

// cost is what a process took.
type cost struct {
	time time.Duration
	peak int64 // bytes
}

func measure(dir, command string) (cost, error) {
	args := strings.Fields(command)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return cost{}, fmt.Errorf("%s: %w: %s", command, err, said.String())
	}
	use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return cost{}, errors.New("this system does not tell the memory of a process")
	}
	return cost{time.Since(began), use.Maxrss << 10}, nil
}

// compare prints one pair's table and returns our bytes ÷ allowed bytes.
func compare(dir, models string, i int) (float64, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	if _, err := measure(dir, fmt.Sprintf("%s pair %s %d meta", self, models, i)); err != nil {
		return 0, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "meta"))
	if err != nil {
		return 0, err
	}
	var p pair
	if err := json.Unmarshal(raw, &p); err != nil {
		return 0, err
	}
	base, target := sizeOf(dir, "base"), sizeOf(dir, "target")
	fmt.Printf("%s (%d → %d bytes)\n", p.Name, base, target)
	fmt.Printf("  %-22s %10s %8s  %16s  %16s\n", "", "bytes", "of model", "make: s, MB", "apply: s, MB")
	var ours, best int64
	for _, t := range tools(self) {
		made, applied, err := try(dir, t)
		if err != nil {
			return 0, err
		}
		size := sizeOf(dir, "delta")
		switch {
		case !t.other:
			ours = size
		case best == 0 || size < best:
			best = size
		}
		fmt.Printf("  %-22s %10d %7.2f%%  %8.2f %7.1f  %8.2f %7.1f\n", t.name, size, 100*float64(size)/float64(target),
			made.time.Seconds(), float64(made.peak)/1e6, applied.time.Seconds(), float64(applied.peak)/1e6)
	}
	if p.OfBest > 0 {
		p.Allowed = p.OfBest * float64(best)
	}
	fmt.Printf("  allowed %.0f bytes (%s): ratio %.3f\n\n", p.Allowed, p.Why, float64(ours)/p.Allowed)
	return float64(ours) / p.Allowed, nil
}

// sizeOf is the size of a file that was just written; 0 when it is not there.
func sizeOf(dir, name string) int64 {
	info, err := os.Stat(filepath.Join(dir, name))
	if err != nil {
		return 0
	}
	return info.Size()
}

func try(dir string, t tool) (made, applied cost, err error) {
	if made, err = measure(dir, t.make); err != nil {
		return made, applied, err
	}
	if applied, err = measure(dir, t.apply); err != nil {
		return made, applied, err
	}
	_, err = measure(dir, "cmp out target")
	return made, applied, err
}

// zstd19 is the size of data compressed by zstd -19.
func zstd19(data []byte) (int, error) {
	cmd := exec.Command("zstd", "-q", "-19", "-c")
	cmd.Stdin = bytes.NewReader(data)
	out, err := cmd.Output()
	return len(out), err
}
