package cage

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// Landlock rights as this package hands them out. Reading never includes
// executing.
const (
	readFile = ll.AccessFSReadFile
	readTree = ll.AccessFSReadFile | ll.AccessFSReadDir
	execFile = ll.AccessFSReadFile | ll.AccessFSExecute
	useFile  = ll.AccessFSReadFile | ll.AccessFSWriteFile | ll.AccessFSIoctlDev
	useTree  = useFile | ll.AccessFSReadDir
)

// What every program needs to load its libraries and to learn about its CPU.
var commonPaths = []string{
	"/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib",
	"/etc/ld.so.cache", "/etc/ld.so.preload", "/usr/lib/locale",
	"/proc/cpuinfo", "/proc/meminfo", "/proc/sys/vm/overcommit_memory",
	"/sys/devices/system/cpu", "/sys/kernel/mm/transparent_hugepage",
	"/dev/urandom", "/dev/random", "/dev/zero", "/dev/null",
}

// What the other profiles read besides.
var profilePaths = map[Profile][]string{
	// libusb looks for devices under /sys.
	InferTPU: {"/sys", "/run/udev"},
	// GStreamer's and FFmpeg's data, name resolution, certificates, V4L2's
	// description of devices. The folders behind /etc/resolv.conf are allowed
	// as a whole, because the file is replaced whenever the network changes.
	Camera: {
		"/usr/share", "/etc/ssl", "/etc/pki", "/etc/ca-certificates",
		"/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/nsswitch.conf", "/etc/gai.conf",
		"/etc/services", "/etc/protocols", "/etc/localtime", "/etc/fonts",
		"/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman",
		"/sys/class/video4linux", "/sys/devices", "/sys/bus", "/run/udev",
	},
}

// wantABI is the Landlock version whose rights cover all that the cage wants.
const wantABI = 6

// confine puts the process into its Landlock domain, if there is Landlock.
func confine(p plan, loader string, note func(string, ...any)) (confined bool, err error) {
	abi, err := ll.LandlockGetABIVersion()
	if err != nil || abi < 1 {
		note("this kernel has no Landlock: files are guarded by the user id alone")
		return false, nil
	}
	if abi < wantABI {
		note("Landlock version %d of %d: not restricted by it, only by seccomp: %s", abi, wantABI, strings.Join(missing(abi), ", "))
	}
	rules := []landlock.Rule{landlock.PathAccess(execFile, "./"+filepath.Base(p.Program))}
	if loader != "" {
		rules = append(rules, landlock.PathAccess(execFile, loader))
	}
	for _, path := range append(append([]string{}, commonPaths...), profilePaths[p.Profile]...) {
		r, err := pathRule(path, readFile, readTree)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			continue // a system without it
		}
		if err != nil {
			return false, err
		}
		rules = append(rules, r)
	}
	for _, path := range p.ReadPaths {
		r, err := pathRule(path, readFile, readTree)
		if err != nil {
			return false, fmt.Errorf("read path: %w", err)
		}
		rules = append(rules, r)
	}
	for _, path := range append([]string{"/dev/null"}, p.Devices...) {
		r, err := pathRule(path, useFile, useTree)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a device may be unplugged; the program will say so
		}
		if err != nil {
			return false, fmt.Errorf("device: %w", err)
		}
		rules = append(rules, r)
	}
	if err := domain(p.Profile).BestEffort().Restrict(rules...); err != nil {
		return false, fmt.Errorf("landlock: %w", err)
	}
	return true, nil
}

// domain is what is forbidden unless a rule allows it.
func domain(p Profile) landlock.Config {
	c := landlock.V10
	if p == Camera {
		// Outgoing connections are the camera's business, and RTSP's pictures
		// come by UDP. What it may never do is serve.
		c.HandledAccessNet = ll.AccessNetBindTCP
		// Reaching a local daemon by a path is not.
	}
	return c
}

func pathRule(path string, file, tree landlock.AccessFSSet) (landlock.Rule, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return landlock.PathAccess(tree, path), nil
	}
	return landlock.PathAccess(file, path), nil
}

// missing names what Landlock learnt after version abi.
func missing(abi int) []string {
	var out []string
	for _, f := range []struct {
		since int
		what  string
	}{{3, "truncating files"}, {4, "TCP"}, {5, "device control"}, {6, "signals and abstract sockets"}} {
		if abi < f.since {
			out = append(out, f.what)
		}
	}
	return out
}

// interpreter reads the path of the program's loader; empty for a static one.
func interpreter(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", fmt.Errorf("program %s: %w", program, err)
	}
	defer f.Close()
	for _, seg := range f.Progs {
		if seg.Type != elf.PT_INTERP {
			continue
		}
		if seg.Filesz > 4096 {
			return "", fmt.Errorf("program %s: loader's path has %d bytes", program, seg.Filesz)
		}
		b := make([]byte, seg.Filesz)
		if _, err := seg.ReadAt(b, 0); err != nil {
			return "", fmt.Errorf("program %s: loader's path: %w", program, err)
		}
		return strings.TrimRight(string(b), "\x00"), nil
	}
	return "", nil
}
