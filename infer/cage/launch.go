package cage

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ExitCode is the launcher stage's when it could not build the cage; the reason
// is the last line it wrote to stderr.
const ExitCode = 111

// gapsEnv carries the launcher stage's gaps to Seal, as a JSON list.
const gapsEnv = "DROVER_CAGE_GAPS"

// Main must be the first thing that main (and TestMain) of a program does that
// starts caged children. In the launcher stage it builds the cage and becomes
// the program, and never returns; otherwise it returns at once.
func Main() {
	if len(os.Args) != 3 || os.Args[1] != stageName {
		return
	}
	runtime.LockOSThread()
	fmt.Fprintf(os.Stderr, "cage: %v\n", launch(os.Args[2]))
	os.Exit(ExitCode)
}

// launch returns only in failure.
func launch(arg string) error {
	var p plan
	if err := json.Unmarshal([]byte(arg), &p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	var gaps []string
	note := func(format string, args ...any) { gaps = append(gaps, fmt.Sprintf(format, args...)) }

	// The folder is entered with the caller's rights, so that the program may
	// stand where its new uid cannot go.
	if err := os.Chdir(filepath.Dir(p.Program)); err != nil {
		return fmt.Errorf("program: %w", err)
	}
	program, err := unix.Open(filepath.Base(p.Program), unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("program %s: %w", p.Program, err)
	}
	loader, err := interpreter(filepath.Base(p.Program))
	if err != nil {
		return err
	}
	if err := shed(p, note); err != nil {
		return err
	}
	// Landlock comes before the change of uid: its rules name paths that the
	// new uid need not reach.
	confined, err := confine(p, loader, note)
	if err != nil {
		return err
	}
	changed, err := dropRoot(p, note)
	if err != nil {
		return err
	}
	if err := openReadPaths(p, changed && confined, note); err != nil {
		return err
	}
	// A change of uid cancels the parent-death signal, so it is set again.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("parent-death signal: %w", err)
	}
	if os.Getppid() != p.Parent {
		return errors.New("the parent is gone")
	}
	env, err := environment(p, gaps)
	if err != nil {
		return err
	}
	if err := limit(p, changed); err != nil {
		return err
	}
	argv := append([]string{p.Program}, p.Args...)
	err = syscall.Exec("./"+filepath.Base(p.Program), argv, env)
	if err == unix.EACCES {
		// The folder is closed to the new uid, the program itself may not be.
		err = execDescriptor(program, argv, env)
	}
	return fmt.Errorf("execute %s as user id %d: %w", p.Program, os.Geteuid(), err)
}

// execDescriptor is execve of an open file. The process is then named after
// the descriptor's number on older kernels, so it is the second choice.
func execDescriptor(fd int, argv, env []string) error {
	argp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	empty := [1]byte{}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(&empty[0])),
		uintptr(unsafe.Pointer(&argp[0])), uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

// shed gives up what needs no privilege to give up.
func shed(p plan, note func(string, ...any)) error {
	if err := closeRest(3 + p.Files); err != nil {
		note("descriptors of the parent could not be closed: %v", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		note("the OOM killer will not prefer this process: %v", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// closeRest makes every descriptor from first on close at exec. What the
// parent hands over on purpose stands below.
func closeRest(first int) error {
	return unix.CloseRange(uint(first), ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
}

// environment is all the child gets.
func environment(p plan, gaps []string) ([]string, error) {
	list, err := json.Marshal(gaps)
	if err != nil {
		return nil, fmt.Errorf("encode gaps: %w", err)
	}
	env := []string{
		gapsEnv + "=" + string(list),
		"LC_ALL=C.UTF-8",
		// OpenBLAS, which OpenCV pulls in, starts a thread per core at load
		// and reserves memory for each; nothing here uses it.
		"OPENBLAS_NUM_THREADS=1",
	}
	if p.Profile == Camera {
		env = append(env,
			// GStreamer scans its plug-ins in a helper process and writes what
			// it finds to a cache. Neither is possible here, so it scans in
			// its own process, each time, without a cache.
			"GST_REGISTRY_FORK=no",
			"GST_REGISTRY=/dev/null",
			// A picture is decoded whole, whatever its header promises: 8K
			// pixels square at most.
			"OPENCV_IO_MAX_IMAGE_PIXELS=67108864",
			// GLib complains about a user without a home.
			"HOME=/nonexistent",
		)
	}
	return append(env, p.Env...), nil
}
