package cage

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Report says what holds the process.
type Report struct {
	Seccomp bool
	Gaps    []string // what could not be enforced, in words; empty is best
}

// Seal closes the cage from inside: it installs the profile's seccomp filter
// on all threads and makes the process untraceable. It must be called after
// all libraries are loaded and before the first hostile byte is read; what the
// process did until then was done by trusted code. It cannot be undone.
//
// The error is for a filter that this kernel should have taken and did not.
func Seal(p Profile) (Report, error) {
	report := Report{Gaps: launcherGaps()}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		report.Gaps = append(report.Gaps, "the process can be traced: "+err.Error())
	}
	if !seccomp.Supported() {
		report.Gaps = append(report.Gaps, "this kernel has no seccomp: no system call is forbidden")
		return report, nil
	}
	info, err := arch.GetInfo("")
	if err != nil {
		report.Gaps = append(report.Gaps, "no seccomp filter for this processor: "+err.Error())
		return report, nil
	}
	policy, err := policyOf(p, info, os.Getpid())
	if err != nil {
		return report, err
	}
	raw, err := bpf.Assemble(policy.assemble())
	if err != nil {
		return report, fmt.Errorf("cage: assemble the %s filter: %w", p, err)
	}
	if err := install(raw); err != nil {
		return report, err
	}
	report.Seccomp = true
	return report, nil
}

// launcherGaps reads what the launcher stage could not do.
func launcherGaps() []string {
	v, ok := os.LookupEnv(gapsEnv)
	if !ok {
		return []string{"started without a cage: user id, files and resources are not restricted"}
	}
	var gaps []string
	if err := json.Unmarshal([]byte(v), &gaps); err != nil {
		return []string{"the launcher's report is unreadable: " + err.Error()}
	}
	return gaps
}

// install puts the filter on all threads, or on none.
func install(raw []bpf.RawInstruction) error {
	insns := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		insns[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(insns)), Filter: &insns[0]}

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cage: no_new_privs: %w", err)
	}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(insns)
	if errno != 0 {
		return fmt.Errorf("cage: install the seccomp filter: %w", errno)
	}
	if tid != 0 {
		// The kernel's way to say that this thread has a filter of its own.
		return fmt.Errorf("cage: install the seccomp filter: %w", errors.New("a thread could not be included"))
	}
	return nil
}
