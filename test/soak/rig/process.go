package rig

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// stat is the state letter and the parent of a process; "" when it is gone.
func stat(pid int) (state string, parent int) {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", 0
	}
	// pid (name) state parent …; the name may hold anything.
	rest := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(rest) < 2 {
		return "", 0
	}
	parent, _ = strconv.Atoi(rest[1])
	return rest[0], parent
}

// gone says whether a process has ended, or is only waited for.
func gone(pid int) bool {
	s, _ := stat(pid)
	return s == "" || s == "Z"
}

// Children are the processes that a process has started and that live.
func Children(parent int) (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			if s, p := stat(pid); p == parent && s != "Z" && s != "" {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Usage is what a process holds.
type Usage struct {
	RSS     int64 // bytes
	Files   int
	Threads int
}

// UsageOf asks the kernel.
func UsageOf(pid int) (u Usage) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	if fds, err := os.ReadDir(filepath.Join(dir, "fd")); err == nil {
		u.Files = len(fds)
	}
	b, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return u
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Threads:"); ok {
			u.Threads, _ = strconv.Atoi(strings.TrimSpace(rest))
		}
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			u.RSS = kb << 10
		}
	}
	return u
}
