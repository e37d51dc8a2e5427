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
	program, err := filter(p, info, os.Getpid())
	if err != nil {
		return report, err
	}
	if err := install(program); err != nil {
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

// filter assembles the profile's filter for a process of the given pid.
//
// The library compares the architecture last and then takes the default action,
// which in a deny-list lets int 0x80 through; and it knows no answer for system
// calls younger than its tables. Both are decided here, in front of its code.
func filter(p Profile, info *arch.Info, pid int) ([]bpf.RawInstruction, error) {
	policy, err := policyOf(p, info, pid)
	if err != nil {
		return nil, err
	}
	body, err := assemble(policy)
	if err != nil {
		return nil, fmt.Errorf("cage: assemble the %s filter: %w", p, err)
	}
	newest := 0
	for n := range info.SyscallNumbers {
		newest = max(newest, n)
	}
	const archOffset, numberOffset = 4, 0
	head := []bpf.Instruction{
		bpf.LoadAbsolute{Off: archOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(seccomp.ActionKillProcess)},
		bpf.LoadAbsolute{Off: numberOffset, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: uint32(newest), SkipFalse: 1},
		bpf.RetConstant{Val: uint32(seccomp.ActionErrno) | uint32(unix.ENOSYS)},
	}
	raw, err := bpf.Assemble(append(head, body...))
	if err != nil {
		return nil, fmt.Errorf("cage: assemble the %s filter: %w", p, err)
	}
	return raw, nil
}

// assemble joins the policy's groups. The library's own code for several
// groups is wrong: after a condition that did not hold, the next group compares
// system call numbers with what is left of the argument. So each group becomes
// a program of its own, which loads the number first, and its last instruction,
// the default action, gives way to the next group.
func assemble(policy *seccomp.Policy) ([]bpf.Instruction, error) {
	var body []bpf.Instruction
	for _, group := range policy.Syscalls {
		one := seccomp.Policy{DefaultAction: policy.DefaultAction, Syscalls: []seccomp.SyscallGroup{group}}
		part, err := one.Assemble()
		if err != nil {
			return nil, err
		}
		body = append(body, part[:len(part)-1]...)
	}
	return append(body, bpf.RetConstant{Val: uint32(policy.DefaultAction)}), nil
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
