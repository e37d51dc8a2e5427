package cage

import (
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// The answers of a filter.
const (
	kill   = seccomp.ActionKillProcess
	allow  = seccomp.ActionAllow
	eperm  = seccomp.ActionErrno | seccomp.Action(unix.EPERM)
	eacces = seccomp.ActionErrno | seccomp.Action(unix.EACCES)
	enosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
)

// rules collects a policy for one architecture; names that its table lacks
// (open on arm64) are left out.
type rules struct {
	info   *arch.Info
	policy seccomp.Policy
}

func (r *rules) add(action seccomp.Action, names ...string) {
	known := make([]string, 0, len(names))
	for _, n := range names {
		if _, ok := r.info.SyscallNames[n]; ok {
			known = append(known, n)
		}
	}
	r.policy.Syscalls = append(r.policy.Syscalls, seccomp.SyscallGroup{Names: known, Action: action})
}

// when adds a rule that holds if all the conditions hold.
func (r *rules) when(action seccomp.Action, name string, conditions ...seccomp.Condition) {
	if _, ok := r.info.SyscallNames[name]; !ok {
		return
	}
	r.policy.Syscalls = append(r.policy.Syscalls, seccomp.SyscallGroup{
		Action:             action,
		NamesWithCondtions: []seccomp.NameWithConditions{{Name: name, Conditions: conditions}},
	})
}

func equal(arg uint32, v uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: seccomp.Equal, Value: v}
}

func anyBit(arg uint32, v uint64) seccomp.Condition {
	return seccomp.Condition{Argument: arg, Operation: seccomp.BitsSet, Value: v}
}

// policyOf is the profile's policy; the first rule that matches decides.
func policyOf(p Profile, info *arch.Info, pid int) (*seccomp.Policy, error) {
	r := &rules{info: info}
	r.add(kill, onlyAttackers...)
	// Threads, but no processes: CLONE_THREAD excludes the flags that make
	// namespaces. clone3 hides its flags in memory, where a filter cannot look;
	// glibc goes back to clone when it is told that there is none.
	r.when(allow, "clone", anyBit(0, unix.CLONE_THREAD))
	r.add(enosys, "clone3")
	r.add(eperm, "clone", "fork", "vfork")
	// A process signals itself only (abort, preemption of goroutines).
	r.when(allow, "tgkill", equal(0, uint64(pid)))
	r.add(eperm, "tgkill", "tkill", "kill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
	// Limits of other processes are not its business.
	r.when(allow, "prlimit64", equal(0, 0))
	r.when(allow, "prlimit64", equal(0, uint64(pid)))
	r.add(eperm, "prlimit64")

	switch p {
	case Infer:
		inferRules(r)
	case InferTPU:
		tpuRules(r)
	case Camera:
		cameraRules(r)
	default:
		return nil, fmt.Errorf("%w: unknown profile %q", ErrOptions, p)
	}
	return &r.policy, nil
}

// inferRules: what the Go runtime, glibc, OpenCV's core and TFLite call once
// everything is loaded, and no more.
func inferRules(r *rules) {
	// Landlock forbids to open for writing; this holds where there is none.
	const writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC
	r.when(eacces, "openat", anyBit(2, writing))
	r.when(eacces, "open", anyBit(1, writing))
	// Anonymous shared memory escapes RLIMIT_DATA.
	r.when(eperm, "mmap", anyBit(3, unix.MAP_SHARED), anyBit(3, unix.MAP_ANONYMOUS))
	// Terminal size and type, asked by every program that writes to stderr.
	r.when(allow, "ioctl", equal(1, unix.TCGETS))
	inferCommon(r)
}

// tpuRules: a delegate drives its device through ioctl and shared mappings, and
// libusb hears of devices through netlink.
func tpuRules(r *rules) {
	r.when(allow, "socket", equal(0, unix.AF_NETLINK))
	r.add(allow, "bind", "setsockopt", "getsockname", "ioctl", "mlock", "munlock", "timerfd_create", "timerfd_settime", "timerfd_gettime")
	inferCommon(r)
}

func inferCommon(r *rules) {
	for _, names := range [][]string{callsOfFiles, callsOfMemory, callsOfThreads, callsOfTime, callsOfMessages, callsOfFacts} {
		r.add(allow, names...)
	}
	for _, option := range prctlOptions {
		r.when(allow, "prctl", equal(0, option))
	}
	r.policy.DefaultAction = seccomp.ActionErrno // EPERM
}

// cameraRules: a client of the network and a reader of files.
func cameraRules(r *rules) {
	for _, family := range []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK} {
		r.when(allow, "socket", equal(0, family))
	}
	r.add(eperm, "socket", "listen", "accept", "accept4")
	r.add(eperm, notForCameras...)
	r.policy.DefaultAction = allow
}
