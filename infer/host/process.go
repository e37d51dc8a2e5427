package host

import (
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/infer/cage"
)

// process is a started child process and the goroutine that waits for it.
type process struct {
	pid   int
	gone  chan struct{} // closed when the process has been waited for
	state *os.ProcessState

	mu     sync.Mutex
	reaped bool // the pid may be somebody else's
}

// startProcess starts the command and waits for it on a thread of its own: the
// parent-death signal follows the thread that forked, not the process.
func startProcess(cmd *exec.Cmd) (*process, error) {
	p := &process{gone: make(chan struct{})}
	started := make(chan error)
	cmd.WaitDelay = time.Second // for what else holds its stderr
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			p.await(cmd)
		}
	}()
	return p, <-started
}

// await kills what is left of the group while the dead leader still holds its
// number, and only then lets the number go.
func (p *process) await(cmd *exec.Cmd) {
	for unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.mu.Lock()
	_ = cage.Kill(p.pid) // nothing is left, mostly
	p.reaped = true
	p.mu.Unlock()
	_ = cmd.Wait() // the state says it all
	p.state = cmd.ProcessState
	close(p.gone)
}

// kill kills the process and its group, if it still is there.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = cage.Kill(p.pid) // fails only for one that has just ended
	}
}
