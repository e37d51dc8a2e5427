package cage

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// stageName is argv[1] of the launcher stage.
const stageName = "__cage"

// plan is what Command tells the launcher stage, as JSON in argv[2].
type plan struct {
	Profile     Profile  `json:"profile"`
	Program     string   `json:"program"`
	Args        []string `json:"args"`
	Env         []string `json:"env"`
	UID         int      `json:"uid"`
	GID         int      `json:"gid"`
	MemoryBytes int64    `json:"memory_bytes"`
	NoFile      int      `json:"nofile"`
	NProc       int      `json:"nproc"`
	ReadPaths   []string `json:"read_paths"`
	Devices     []string `json:"devices"`
	Files       int      `json:"files"`
	Parent      int      `json:"parent"` // pid
}

// Command prepares a child in its cage; the caller starts and waits for it.
// The running binary must call Main first thing in main. The end of ctx kills
// the child with all it may have started.
//
// The child is the leader of a session of its own, so that its pid is also the
// number of its process group. It dies when the thread that started it ends:
// a caller whose goroutines end locked to threads must start it from a thread
// that lives on (runtime.LockOSThread).
func Command(ctx context.Context, o Options) (*exec.Cmd, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(o.Program)
	switch {
	case err != nil:
		return nil, fmt.Errorf("cage: program: %w", err)
	case !st.Mode().IsRegular() || st.Mode()&0o111 == 0:
		return nil, fmt.Errorf("cage: program %s is not an executable file", o.Program)
	}
	p := plan{
		Profile: o.Profile, Program: o.Program, Args: o.Args, Env: o.Env, UID: o.UID, GID: o.GID,
		MemoryBytes: o.MemoryBytes, NoFile: o.NoFile, NProc: o.NProc,
		ReadPaths: o.ReadPaths, Devices: o.Devices, Files: len(o.Files), Parent: os.Getpid(),
	}
	arg, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("cage: encode the plan: %w", err)
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", stageName, string(arg))
	cmd.Args[0] = "drover-cage"
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stderr = o.Stderr
	cmd.ExtraFiles = o.Files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return Kill(cmd.Process.Pid) }
	return cmd, nil
}

// Kill kills the process group that a child leads. It must not be called after
// the child has been waited for: the number may then be somebody else's.
func Kill(pid int) error {
	if pid < 2 {
		panic("internal error: cage: kill of process group " + strconv.Itoa(pid))
	}
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if err == syscall.ESRCH { // not yet a group leader, or a zombie
		err = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err == syscall.ESRCH {
		return os.ErrProcessDone
	}
	if err != nil {
		return fmt.Errorf("cage: kill process %d: %w", pid, err)
	}
	return nil
}
