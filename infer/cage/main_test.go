package cage

import (
	"encoding/json"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain is the launcher stage, the caged child and the tests.
func TestMain(m *testing.M) {
	Main()
	if os.Getenv(probeEnv) != "" {
		os.Exit(probe())
	}
	os.Exit(m.Run())
}

const probeEnv = "CAGE_TEST_PROBE"

// probed is what the caged child finds, as JSON on stderr.
type probed struct {
	UID, GID, Groups int
	Env              []string
	Readable         map[string]string // path → error, or ""
	Writable         map[string]string
	Capabilities     uint32
	Session          bool // leads one of its own
	Report           Report
	SealError        string
	Caged, Sealed    map[string]string // attempt → error, before and after Seal
	Limits           map[string]uint64
}

// probe is the caged child. Its arguments are a profile and paths.
func probe() int {
	p := probed{UID: os.Getuid(), GID: os.Getgid(), Env: os.Environ(), Readable: map[string]string{}, Writable: map[string]string{}}
	groups, _ := os.Getgroups()
	p.Groups = len(groups)
	p.Session = unix.Getpgrp() == os.Getpid()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&header, &data[0]) == nil {
		p.Capabilities = data[0].Effective | data[0].Permitted
	}
	p.Limits = map[string]uint64{}
	for name, r := range map[string]int{"core": unix.RLIMIT_CORE, "nofile": unix.RLIMIT_NOFILE, "data": unix.RLIMIT_DATA} {
		var l unix.Rlimit
		if unix.Getrlimit(r, &l) == nil {
			p.Limits[name] = l.Max
		}
	}
	p.Caged = attempts()
	report, err := Seal(Profile(os.Args[1]))
	p.Report = report
	if err != nil {
		p.SealError = err.Error()
	}
	p.Sealed = attempts()
	for _, path := range os.Args[2:] {
		p.Readable[path] = text(open(path, os.O_RDONLY))
		p.Writable[path] = text(open(path, os.O_WRONLY))
	}
	if json.NewEncoder(os.Stderr).Encode(p) != nil {
		return 1
	}
	return 0
}

func attempts() map[string]string {
	socket := func(family, kind int) string {
		fd, err := unix.Socket(family, kind, 0)
		if err == nil {
			unix.Close(fd)
		}
		return text(err)
	}
	out := map[string]string{
		"tcp":     socket(unix.AF_INET, unix.SOCK_STREAM),
		"udp":     socket(unix.AF_INET6, unix.SOCK_DGRAM),
		"unix":    socket(unix.AF_UNIX, unix.SOCK_STREAM),
		"netlink": socket(unix.AF_NETLINK, unix.SOCK_RAW),
		"packet":  socket(unix.AF_PACKET, unix.SOCK_RAW),
	}
	if fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0); err == nil {
		out["serve"] = text(unix.Bind(fd, &unix.SockaddrInet4{}))
		if err := unix.Listen(fd, 1); err != nil {
			out["serve"] = text(err)
		}
		unix.Close(fd)
	}
	return out
}

func open(path string, flag int) error {
	f, err := os.OpenFile(path, flag, 0)
	if err == nil {
		f.Close()
	}
	return err
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
