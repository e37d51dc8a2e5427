package cage

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a started child and the goroutine that waits for it. Its methods
// may be called from any goroutine.
type Process struct {
	pid   int
	gone  chan struct{} // closed when the process has been waited for
	state *os.ProcessState

	mu     sync.Mutex
	reaped bool // the pid may be somebody else's
}

// Start starts a child as Command describes it, on a thread of its own: the
// parent-death signal follows the thread that forked, not the process. When ctx
// ends the child is killed.
func Start(ctx context.Context, o Options) (*Process, error) {
	cmd, err := Command(ctx, o)
	if err != nil {
		return nil, err
	}
	p := &Process{gone: make(chan struct{})}
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

// PID is the number of the process, of use while Done is open.
func (p *Process) PID() int { return p.pid }

// Done is closed when the process has ended and been waited for.
func (p *Process) Done() <-chan struct{} { return p.gone }

// State says how the process ended; nil before Done is closed.
func (p *Process) State() *os.ProcessState {
	select {
	case <-p.gone:
		return p.state
	default:
		return nil
	}
}

// await kills what is left of the group while the dead leader still holds its
// number, and only then lets the number go.
func (p *Process) await(cmd *exec.Cmd) {
	for unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.mu.Lock()
	_ = Kill(p.pid) // nothing is left, mostly
	p.reaped = true
	p.mu.Unlock()
	_ = cmd.Wait() // the state says it all
	p.state = cmd.ProcessState
	close(p.gone)
}

// Kill kills the process and its group, if it still is there. It does not wait.
func (p *Process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = Kill(p.pid) // fails only for one that has just ended
	}
}
