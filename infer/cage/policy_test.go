package cage

import (
	"encoding/binary"
	"fmt"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const testPID = 4711

// decide runs the profile's filter on a call as the kernel would.
func decide(t *testing.T, p Profile, info *arch.Info, id arch.AuditArch, number int, args ...uint64) seccomp.Action {
	t.Helper()
	pol, err := policyOf(p, info, testPID)
	if err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(pol.assemble())
	if err != nil {
		t.Fatal(err)
	}
	// The machine of the test loads big-endian words, the kernel's native ones;
	// the halves of an argument stand as on a little-endian machine.
	data := make([]byte, 64)
	be := binary.BigEndian
	be.PutUint32(data[numberOffset:], uint32(number))
	be.PutUint32(data[archOffset:], uint32(id))
	for i, a := range args {
		be.PutUint32(data[argsOffset+8*i:], uint32(a))
		be.PutUint32(data[argsOffset+8*i+4:], uint32(a>>32))
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return seccomp.Action(uint32(n))
}

func TestPolicies(t *testing.T) {
	const enosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
	all := []Profile{Infer, InferTPU, Camera}
	inference := all[:2]
	for _, tc := range []struct {
		what     string
		profiles []Profile
		call     string
		args     []uint64
		want     seccomp.Action
	}{
		{"exec", all, "execve", nil, kill},
		{"exec of a descriptor", all, "execveat", nil, kill},
		{"trace", all, "ptrace", nil, kill},
		{"another process's memory", all, "process_vm_writev", nil, kill},
		{"mount", all, "mount", nil, kill},
		{"namespaces", all, "unshare", nil, kill},
		{"a kernel module", all, "finit_module", nil, kill},
		{"bpf", all, "bpf", nil, kill},
		{"a thread", all, "clone", []uint64{0x3d0f00}, allow},
		{"a process", all, "clone", []uint64{uint64(unix.SIGCHLD)}, eperm},
		{"a process whose flags read like pread64", all, "clone", []uint64{17}, eperm},
		{"a process, upper half noise", all, "clone", []uint64{unix.CLONE_THREAD << 32}, eperm},
		{"clone3", all, "clone3", nil, enosys},
		{"own thread", all, "tgkill", []uint64{testPID, 9}, allow},
		{"foreign thread", all, "tgkill", []uint64{testPID + 1, 9}, eperm},
		{"foreign thread, upper half noise", all, "tgkill", []uint64{1<<32 | testPID}, eperm},
		{"kill", all, "kill", []uint64{testPID}, eperm},
		{"own limits", all, "prlimit64", []uint64{0}, allow},
		{"foreign limits", all, "prlimit64", []uint64{1}, eperm},
		{"read", all, "read", nil, allow},
		{"futex", all, "futex", nil, allow},
		{"open to read", all, "openat", []uint64{0, 0, unix.O_RDONLY | unix.O_CLOEXEC}, allow},
		{"open to write", []Profile{Infer}, "openat", []uint64{0, 0, unix.O_WRONLY}, eacces},
		{"open to create", []Profile{Infer}, "openat", []uint64{0, 0, unix.O_CREAT}, eacces},
		{"open a device", []Profile{InferTPU, Camera}, "openat", []uint64{0, 0, unix.O_RDWR}, allow},
		{"private memory", all, "mmap", []uint64{0, 0, 0, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}, allow},
		{"Go's heap grows", all, "mmap", []uint64{0, 0, 0, unix.MAP_FIXED | unix.MAP_PRIVATE | unix.MAP_ANONYMOUS}, allow},
		{"a thread's stack", all, "mmap", []uint64{0, 0, 0, unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_STACK | unix.MAP_NORESERVE}, allow},
		{"the model", all, "mmap", []uint64{0, 0, 0, unix.MAP_PRIVATE}, allow},
		{"the ring", all, "mmap", []uint64{0, 0, 0, unix.MAP_SHARED}, allow},
		{"shared anonymous memory", []Profile{Infer}, "mmap", []uint64{0, 0, 0, unix.MAP_SHARED | unix.MAP_ANONYMOUS}, eperm},
		{"internet socket", inference, "socket", []uint64{unix.AF_INET}, eperm},
		{"internet socket", []Profile{Camera}, "socket", []uint64{unix.AF_INET}, allow},
		{"netlink socket", []Profile{Infer}, "socket", []uint64{unix.AF_NETLINK}, eperm},
		{"netlink socket", []Profile{InferTPU}, "socket", []uint64{unix.AF_NETLINK}, allow},
		{"packet socket", all, "socket", []uint64{unix.AF_PACKET}, eperm},
		{"serve", all, "listen", nil, eperm},
		{"connect", inference, "connect", nil, eperm},
		{"connect", []Profile{Camera}, "connect", nil, allow},
		{"terminal type", []Profile{Infer}, "ioctl", []uint64{2, unix.TCGETS}, allow},
		{"terminal input", []Profile{Infer}, "ioctl", []uint64{2, unix.TIOCSTI}, eperm},
		{"terminal input", []Profile{Camera}, "ioctl", []uint64{2, unix.TIOCSTI}, eperm},
		{"camera control", []Profile{Camera}, "ioctl", []uint64{5, 0xc0145608}, allow},
		{"thread name", all, "prctl", []uint64{unix.PR_SET_NAME}, allow},
		{"dumpable", inference, "prctl", []uint64{unix.PR_SET_DUMPABLE, 1}, eperm},
		{"io_uring", all, "io_uring_setup", nil, eperm},
		{"rename", all, "renameat", nil, eperm},
	} {
		for _, p := range tc.profiles {
			for _, info := range []*arch.Info{arch.X86_64, arch.AARCH64} {
				number, ok := info.SyscallNames[tc.call]
				if !ok {
					t.Errorf("%s is not in the table of %s", tc.call, info.Name)
					continue
				}
				if got := decide(t, p, info, info.ID, number, tc.args...); got != tc.want {
					t.Errorf("%s on %s: %s (%s %#x): %#x, expected %#x", p, info.Name, tc.what, tc.call, tc.args, uint32(got), uint32(tc.want))
				}
			}
		}
	}
}

// The other doors into the kernel are shut in every profile.
func TestOtherTables(t *testing.T) {
	const enosys = seccomp.ActionErrno | seccomp.Action(unix.ENOSYS)
	for _, p := range []Profile{Infer, InferTPU, Camera} {
		for _, tc := range []struct {
			what string
			host *arch.Info
			id   arch.AuditArch
			nr   int
			want seccomp.Action
		}{
			{"int 0x80", arch.X86_64, arch.I386.ID, arch.I386.SyscallNames["getpid"], kill},
			{"32-bit arm", arch.AARCH64, arch.ARM.ID, arch.ARM.SyscallNames["getpid"], kill},
			{"x32", arch.X86_64, arch.X86_64.ID, 0x40000000 | arch.X86_64.SyscallNames["execve"], enosys},
			{"a call of tomorrow", arch.AARCH64, arch.AARCH64.ID, 5000, enosys},
		} {
			if got := decide(t, p, tc.host, tc.id, tc.nr); got != tc.want {
				t.Errorf("%s: %s: %#x, expected %#x", p, tc.what, uint32(got), uint32(tc.want))
			}
		}
	}
}

// A misspelt name would be left out in silence.
func TestNamesExist(t *testing.T) {
	lists := map[string][]string{
		"onlyAttackers": onlyAttackers, "notForCameras": notForCameras, "files": callsOfFiles, "memory": callsOfMemory,
		"threads": callsOfThreads, "time": callsOfTime, "messages": callsOfMessages, "facts": callsOfFacts,
	}
	for list, names := range lists {
		for _, n := range names {
			known := false
			for _, info := range []*arch.Info{arch.X86_64, arch.AARCH64, arch.ARM} {
				_, ok := info.SyscallNames[n]
				known = known || ok
			}
			if !known {
				t.Errorf("%s: no table knows %q", list, n)
			}
		}
	}
}

// What is allowed and what kills must not overlap: the order of the rules would
// decide, and nobody would see it.
func TestListsDoNotOverlap(t *testing.T) {
	seen := map[string]string{}
	for list, names := range map[string][]string{
		"onlyAttackers": onlyAttackers, "files": callsOfFiles, "memory": callsOfMemory,
		"threads": callsOfThreads, "time": callsOfTime, "messages": callsOfMessages, "facts": callsOfFacts,
	} {
		for _, n := range names {
			if other, ok := seen[n]; ok {
				t.Errorf("%s stands in %s and in %s", n, other, list)
			}
			seen[n] = fmt.Sprint(list)
		}
	}
}
