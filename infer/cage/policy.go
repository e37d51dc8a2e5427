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

// policyOf is the profile's policy; the first rule that matches decides.
func policyOf(p Profile, info *arch.Info, pid int) (*policy, error) {
	r := &policy{info: info}
	r.add(kill, onlyAttackers...)
	// Threads, but no processes: CLONE_THREAD excludes the flags that make
	// namespaces. clone3 hides its flags in memory, where a filter cannot look;
	// glibc goes back to clone when it is told that there is none.
	r.when(allow, "clone", anyBit(0, unix.CLONE_THREAD))
	r.add(enosys, "clone3")
	r.add(eperm, "clone", "fork", "vfork")
	// A process signals itself only (abort, preemption of goroutines).
	r.when(allow, "tgkill", equal(0, uint32(pid)))
	r.add(eperm, "tgkill", "tkill", "kill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_send_signal")
	// Limits of other processes are not its business.
	r.when(allow, "prlimit64", equal(0, 0))
	r.when(allow, "prlimit64", equal(0, uint32(pid)))
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
	return r, nil
}

// inferRules: what the Go runtime, glibc, OpenCV's core and TFLite call once
// everything is loaded, and no more.
func inferRules(r *policy) {
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
func tpuRules(r *policy) {
	r.when(allow, "socket", equal(0, unix.AF_NETLINK))
	r.add(allow, "bind", "setsockopt", "getsockname", "ioctl", "mlock", "munlock", "timerfd_create", "timerfd_settime", "timerfd_gettime")
	inferCommon(r)
}

func inferCommon(r *policy) {
	for _, names := range [][]string{callsOfFiles, callsOfMemory, callsOfThreads, callsOfTime, callsOfMessages, callsOfFacts} {
		r.add(allow, names...)
	}
	for _, option := range prctlOptions {
		r.when(allow, "prctl", equal(0, option))
	}
	r.otherwise = eperm
}

// cameraRules: a client of the network and a reader of files.
func cameraRules(r *policy) {
	for _, family := range []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK} {
		r.when(allow, "socket", equal(0, family))
	}
	r.add(eperm, "socket", "listen", "accept", "accept4")
	// Typing on the terminal that drover was started from.
	r.when(eperm, "ioctl", equal(1, unix.TIOCSTI))
	r.when(eperm, "ioctl", equal(1, unix.TIOCLINUX))
	r.add(eperm, notForCameras...)
	r.otherwise = allow
}
