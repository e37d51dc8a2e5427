package cage

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// addressSlack is how much more address space than private memory a child may
// reserve: Go's heap arenas, glibc's arenas per thread, mapped libraries and
// the shared memory of frames reserve far more than they touch.
const addressSlack = 4 << 30

// maxFileBytes bounds what a child may put into one file, which can only be a
// memfd: the largest tensor.
const maxFileBytes = 64 << 20

// limit sets the resource limits; last before exec, for they hold for the
// launcher as well.
//
// RLIMIT_DATA is the one that bites: it counts private writable memory, what a
// model's arenas are made of. RLIMIT_AS alone would have to be so high that it
// means nothing, for the Go runtime and OpenCV reserve address space by the
// gigabyte; it stands behind as a bound on shared mappings, which RLIMIT_DATA
// does not count, and RLIMIT_FSIZE × RLIMIT_NOFILE bounds memfds that are not
// mapped. A machine that is short of memory all the same kills the child first
// (oom_score_adj).
func limit(p plan, ownUser bool) error {
	type entry struct {
		name     string
		resource int
		value    uint64
	}
	list := []entry{
		{"core", unix.RLIMIT_CORE, 0},
		{"nofile", unix.RLIMIT_NOFILE, uint64(p.NoFile)},
		{"fsize", unix.RLIMIT_FSIZE, maxFileBytes},
		// libgcrypt, which FFmpeg loads, locks a few pages and complains otherwise.
		{"memlock", unix.RLIMIT_MEMLOCK, 1 << 20},
		{"msgqueue", unix.RLIMIT_MSGQUEUE, 0},
	}
	if ownUser {
		list = append(list, entry{"nproc", unix.RLIMIT_NPROC, uint64(p.NProc)})
	}
	if p.MemoryBytes > 0 {
		list = append(list,
			entry{"as", unix.RLIMIT_AS, uint64(p.MemoryBytes) + addressSlack},
			entry{"data", unix.RLIMIT_DATA, uint64(p.MemoryBytes)})
	}
	for _, l := range list {
		if err := setLimit(l.resource, l.value); err != nil {
			return fmt.Errorf("limit %s to %d: %w", l.name, l.value, err)
		}
	}
	return nil
}

// setLimit lowers a limit; one that is lower already stays.
func setLimit(resource int, value uint64) error {
	var old unix.Rlimit
	if err := unix.Getrlimit(resource, &old); err != nil {
		return err
	}
	value = min(value, old.Max)
	return unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value})
}
