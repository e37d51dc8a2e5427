package host

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ask is reached only when the kernel let the process live.
func ask(err error) int {
	fmt.Fprintln(os.Stderr, "still alive after", err)
	return 60
}

// peek reads a word of another process.
func peek(pid int) error {
	var word [8]byte
	local := unix.Iovec{Base: &word[0], Len: 8}
	remote := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&word[0])), Len: 8}
	_, err := unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{remote}, 0)
	return err
}

type attempt struct {
	name string
	do   func() error
}

// tryAll reports each attempt that succeeded; the exit code is 0 if none did.
func tryAll(attempts []attempt) int {
	code := 0
	for _, a := range attempts {
		if err := a.do(); err == nil {
			fmt.Fprintln(os.Stderr, "broke out:", a.name)
			code = 50
		}
	}
	if code == 0 {
		fmt.Fprintf(os.Stderr, "all %d attempts failed\n", len(attempts))
	}
	return code
}

func read(path string) func() error {
	return func() error {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		return err
	}
}

func write(path string) func() error {
	return func() error { return os.WriteFile(path, []byte("x"), 0o600) }
}

func fileAttempts() []attempt {
	secret := os.Getenv(secretEnv)
	parent := fmt.Sprintf("/proc/%d/", os.Getppid())
	return []attempt{
		{"read /etc/passwd", read("/etc/passwd")},
		{"read a configuration file", read(secret)},
		{"list the root", func() error { _, err := os.ReadDir("/"); return err }},
		{"read the parent's environment", read(parent + "environ")},
		{"read the parent's memory", read(parent + "mem")},
		{"write over a configuration file", write(secret)},
		{"write beside it", write(filepath.Join(filepath.Dir(secret), "new"))},
		{"write to /tmp", write("/tmp/drover-hostile")},
		{"write to /dev/shm", write("/dev/shm/drover-hostile")},
		{"truncate it", func() error { return os.Truncate(secret, 0) }},
		{"remove it", func() error { return os.Remove(secret) }},
		{"make a folder", func() error { return os.Mkdir("/tmp/drover-hostile.d", 0o700) }},
	}
}

// openEnded tries what the launcher stage alone must prevent.
func openEnded(*fake) int {
	return tryAll(append(fileAttempts(),
		attempt{"execute a shell", func() error { return syscall.Exec("/bin/sh", []string{"sh", "-c", "exit 51"}, nil) }},
		attempt{"connect to the parent's server", func() error {
			c, err := net.Dial("tcp", "127.0.0.1:"+os.Getenv(listenEnv))
			if err == nil {
				c.Close()
			}
			return err
		}},
		attempt{"inherit the environment", func() error {
			if os.Getenv("PATH") == "" && os.Getenv("HOME") == "" {
				return os.ErrNotExist
			}
			return nil
		}},
		attempt{"become root", func() error {
			if os.Geteuid() == 0 {
				return nil
			}
			return unix.Setresuid(0, 0, 0)
		}},
		attempt{"find other descriptors", func() error {
			for fd := 4; fd < 64; fd++ {
				var st unix.Stat_t
				if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
					return nil
				}
			}
			return os.ErrNotExist
		}},
		attempt{"raise a limit", func() error {
			return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096})
		}},
	))
}

// breakOut tries what must fail once the cage is closed, and does not kill.
func breakOut(*fake) int {
	socket := func(family, kind int) func() error {
		return func() error { _, err := unix.Socket(family, kind, 0); return err }
	}
	parent := os.Getppid()
	return tryAll(append(fileAttempts(),
		attempt{"open a TCP socket", socket(unix.AF_INET, unix.SOCK_STREAM)},
		attempt{"open a UDP socket", socket(unix.AF_INET6, unix.SOCK_DGRAM)},
		attempt{"open a Unix socket", socket(unix.AF_UNIX, unix.SOCK_STREAM)},
		attempt{"open a netlink socket", socket(unix.AF_NETLINK, unix.SOCK_RAW)},
		attempt{"make a socket pair", func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
		attempt{"fork", func() error {
			pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
			if errno != 0 {
				return errno
			}
			if pid == 0 {
				//lint:ignore SA5002 after a raw fork this is all the child may do
				for {
				}
			}
			return nil
		}},
		attempt{"signal the parent", func() error { return unix.Kill(parent, 0) }},
		attempt{"signal a thread of the parent", func() error { return unix.Tgkill(parent, parent, 0) }},
		attempt{"limit the parent", func() error { return unix.Prlimit(parent, unix.RLIMIT_NOFILE, nil, &unix.Rlimit{}) }},
		attempt{"share anonymous memory", func() error {
			_, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_ANON)
			return err
		}},
		attempt{"watch performance", func() error {
			_, err := unix.PerfEventOpen(&unix.PerfEventAttr{}, 0, -1, -1, 0)
			return err
		}},
		attempt{"keep a key", func() error { _, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_KEYRING, true); return err }},
		attempt{"set up io_uring", func() error { return errno(unix.SYS_IO_URING_SETUP, 8, 0) }},
		attempt{"call something unknown", func() error { return errno(5000, 0, 0) }},
		attempt{"use the x32 table", func() error { return errno(0x40000000|39, 0, 0) }},
		attempt{"be dumpable again", func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }},
	))
}

func errno(nr, a, b uintptr) error {
	if _, _, e := unix.RawSyscall(nr, a, b, 0); e != 0 {
		return e
	}
	return nil
}

// greedy allocates 4 GiB of private memory.
func greedy(*fake) int {
	var kept [][]byte
	for range 64 {
		b := make([]byte, 64<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
	fmt.Fprintln(os.Stderr, "had", len(kept)*64, "MiB")
	return 61
}

// hoarder puts a gigabyte into one memfd.
func hoarder(*fake) int {
	fd, err := unix.MemfdCreate("hoard", 0)
	if err != nil {
		return ask(err)
	}
	if err := unix.Ftruncate(fd, 1<<30); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		return 62
	}
	return 61
}
