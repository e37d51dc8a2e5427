package host

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host/protocol"
)

// The environment of the hostile child.
const (
	deedEnv   = "DROVER_TEST_DEED"
	secretEnv = "DROVER_TEST_SECRET" // path of a file that the child must not reach
	listenEnv = "DROVER_TEST_LISTEN" // port of a TCP server of the parent
)

// fakeContract is what the hostile child claims of any model.
func fakeContract() infer.Contract {
	q := infer.Quant{Scales: []float32{1}, ZeroPoints: []int32{0}}
	return infer.Contract{
		Input:  infer.TensorSpec{Shape: []int{1, 4, 4, 1}, DType: infer.Uint8, Quant: q},
		Output: infer.TensorSpec{Shape: []int{1, 3}, DType: infer.Uint8, Quant: q},
	}
}

func fakeSpec() *infer.Spec {
	return &infer.Spec{
		Contract: fakeContract(), Labels: []string{"a", "b", "c"},
		Preprocess: infer.Preprocess{
			Color: infer.Gray, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Nearest,
			Mean: []float32{0}, Std: []float32{1},
		},
		Postprocess: infer.DefaultPostprocess(),
	}
}

// fake is the hostile child's side of the conversation.
type fake struct {
	conn *ipc.Conn
	buf  []byte
	id   uint64 // of the last Run
}

func (f *fake) send(kind byte, v any, fds ...int) {
	b, err := json.Marshal(v)
	if err == nil {
		err = f.conn.Send(kind, b, fds...)
	}
	f.must(err)
}

func (f *fake) must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		os.Exit(40)
	}
}

// recv waits for a message of the kind and returns its payload.
func (f *fake) recv(kind byte) []byte {
	for {
		m, err := f.conn.Recv(f.buf)
		f.must(err)
		if m.Kind == protocol.KindStop {
			os.Exit(0)
		}
		if m.Kind == kind {
			return m.Payload
		}
	}
}

func (f *fake) hello() { f.send(protocol.KindHello, protocol.Hello{Program: "fake"}) }

func (f *fake) seal() {
	r, err := cage.Seal(cage.Infer)
	f.must(err)
	f.send(protocol.KindSealed, protocol.Sealed{Seccomp: r.Seccomp, Gaps: r.Gaps})
}

func (f *fake) loaded() {
	f.recv(protocol.KindLoad)
	f.send(protocol.KindLoaded, protocol.Loaded{Contract: fakeContract(), Delegate: protocol.Builtin})
}

func (f *fake) run() {
	var run protocol.Run
	f.must(json.Unmarshal(f.recv(protocol.KindRun), &run))
	f.id = run.ID
}

func (f *fake) answer(r protocol.Result, fds ...int) {
	f.must(f.conn.Send(protocol.KindResult, r.Append(nil), fds...))
}

// misbehave is the hostile child: it plays along up to the stage at which its
// deed belongs, and then does it. What it returns is its exit code.
func misbehave(deed string) int {
	if deed == "linger" {
		time.Sleep(time.Minute)
		return 0
	}
	conn, err := ipc.FromFD(ipc.ChildFD)
	f := &fake{conn: conn, buf: make([]byte, ipc.MaxMessage)}
	f.must(err)
	if do := beforeHello[deed]; do != nil {
		return do(f)
	}
	f.hello()
	if do := beforeSeal[deed]; do != nil {
		return do(f)
	}
	f.seal()
	if do := sealed[deed]; do != nil {
		return do(f)
	}
	f.loaded()
	if do := withModel[deed]; do != nil {
		return do(f)
	}
	f.run()
	if do := withRequest[deed]; do != nil {
		return do(f)
	}
	if deed != "serve" {
		fmt.Fprintln(os.Stderr, "fake: unknown deed", deed)
		return 41
	}
	for {
		f.answer(protocol.Result{Source: protocol.RunSource, ID: f.id, Data: []byte{1, 2, 3}})
		f.run()
	}
}

type deed = func(f *fake) int

// raw writes a packet as it is.
func raw(b []byte) deed {
	return func(f *fake) int {
		if _, err := unix.Write(ipc.ChildFD, b); err != nil {
			f.must(err)
		}
		time.Sleep(time.Minute)
		return 0
	}
}

// stay sends and then waits to be killed.
func stay(do func(f *fake)) deed {
	return func(f *fake) int {
		do(f)
		time.Sleep(time.Minute)
		return 0
	}
}

func spin(*fake) int {
	//lint:ignore SA5002 spinning is the deed
	for {
	}
}

var beforeHello = map[string]deed{
	"garbage":   raw([]byte("\xff\x00garbage")),
	"empty":     raw([]byte{ipc.Version}),
	"version":   raw([]byte{ipc.Version + 8, protocol.KindHello, '{', '}'}),
	"oversized": raw(make([]byte, 150_000)),
	"badjson":   raw(append([]byte{ipc.Version, protocol.KindHello}, `{"program":1}`...)),
	"newkey":    raw(append([]byte{ipc.Version, protocol.KindHello}, `{"programme":"x"}`...)),
	"silent":    stay(func(*fake) {}),
	"spinstart": spin,
	"exit":      func(*fake) int { return 3 },
	"abort":     func(*fake) int { panic("the hostile child aborts") },
	"noisy": func(*fake) int {
		for range 20_000 {
			fmt.Fprintln(os.Stderr, "noise \x1b[31m and more noise, and no end of it")
		}
		fmt.Fprintln(os.Stderr, "the very last words")
		return 7
	},
	"sealfirst": stay(func(f *fake) { f.seal() }),
	"fdhello":   stay(func(f *fake) { f.send(protocol.KindHello, protocol.Hello{}, 2) }),
	"deaf": func(f *fake) int {
		f.conn.Close()
		time.Sleep(time.Minute)
		return 0
	},
}

var beforeSeal = map[string]deed{
	"resultfirst": stay(func(f *fake) { f.answer(protocol.Result{Source: protocol.RunSource, ID: 1}) }),
	"openended":   openEnded,
	"family": func(f *fake) int {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{deedEnv + "=linger"}
		cmd.Stderr = os.Stderr
		cmd.ExtraFiles = []*os.File{os.NewFile(3, "socket")}
		f.must(cmd.Start())
		fmt.Fprintln(os.Stderr, "grandchild", cmd.Process.Pid)
		return 9
	},
}

var sealed = map[string]deed{
	"breakout":   breakOut,
	"exec":       func(*fake) int { return ask(syscall.Exec("/bin/true", nil, nil)) },
	"execself":   func(*fake) int { return ask(syscall.Exec("/proc/self/exe", []string{"x"}, nil)) },
	"ptrace":     func(*fake) int { return ask(unix.PtraceAttach(os.Getppid())) },
	"mount":      func(*fake) int { return ask(unix.Mount("none", "/", "tmpfs", 0, "")) },
	"unshare":    func(*fake) int { return ask(unix.Unshare(unix.CLONE_NEWUSER)) },
	"peek":       func(*fake) int { return ask(peek(os.Getppid())) },
	"exitloaded": func(f *fake) int { f.recv(protocol.KindLoad); return 5 },
	"spinload":   func(f *fake) int { f.recv(protocol.KindLoad); return spin(f) },
	"loadedearly": stay(func(f *fake) {
		f.send(protocol.KindLoaded, protocol.Loaded{Contract: fakeContract(), Delegate: protocol.Builtin})
	}),
	"refusedearly": stay(func(f *fake) { f.send(protocol.KindRefused, protocol.Refused{Kind: protocol.RefusedModel}) }),
	"othercontract": stay(func(f *fake) {
		f.recv(protocol.KindLoad)
		c := fakeContract()
		c.Output.Shape = []int{1, 4}
		f.send(protocol.KindLoaded, protocol.Loaded{Contract: c, Delegate: protocol.Builtin})
	}),
	"noclassifier": stay(func(f *fake) {
		f.recv(protocol.KindLoad)
		f.send(protocol.KindLoaded, protocol.Loaded{Delegate: protocol.Builtin})
	}),
	"newdelegate": stay(func(f *fake) {
		f.recv(protocol.KindLoad)
		f.send(protocol.KindLoaded, protocol.Loaded{Contract: fakeContract(), Delegate: "warp"})
	}),
	"newrefusal": stay(func(f *fake) { f.recv(protocol.KindLoad); f.send(protocol.KindRefused, protocol.Refused{Kind: "mood"}) }),
}

var withModel = map[string]deed{
	"stranger": stay(func(f *fake) { f.answer(protocol.Result{Source: 5, Data: []byte{1, 2, 3}}) }),
	"unasked":  stay(func(f *fake) { f.answer(protocol.Result{Source: protocol.RunSource, ID: 1, Data: []byte{1, 2, 3}}) }),
	"loadagain": stay(func(f *fake) {
		f.send(protocol.KindLoaded, protocol.Loaded{Contract: fakeContract(), Delegate: protocol.Builtin})
	}),
	"unknown": stay(func(f *fake) { f.send(200, struct{}{}) }),
	"greedy":  greedy,
	"hoarder": hoarder,
	"flood": func(f *fake) int {
		f.recv(protocol.KindAttach)
		for seq := uint64(1); ; seq++ {
			f.answer(protocol.Result{Source: 1, ID: seq, Data: []byte{1, 2, 3}})
		}
	},
	"faults": func(f *fake) int {
		for range 1000 {
			f.send(protocol.KindFault, protocol.Fault{Message: "\x1b[2J\nfault"})
		}
		return 6
	},
}

var withRequest = map[string]deed{
	"spin":  spin,
	"dies":  func(*fake) int { return 8 },
	"long":  stay(func(f *fake) { f.answer(protocol.Result{Source: protocol.RunSource, ID: f.id, Data: make([]byte, 4)}) }),
	"short": stay(func(f *fake) { f.answer(protocol.Result{Source: protocol.RunSource, ID: f.id, Data: make([]byte, 2)}) }),
	"wrongid": stay(func(f *fake) {
		f.answer(protocol.Result{Source: protocol.RunSource, ID: f.id + 1, Data: make([]byte, 3)})
	}),
	"wordy": stay(func(f *fake) {
		f.answer(protocol.Result{Source: protocol.RunSource, ID: f.id, Status: protocol.BadFrame, Data: make([]byte, 50_000)})
	}),
	"newstate":  stay(func(f *fake) { f.answer(protocol.Result{Source: protocol.RunSource, ID: f.id, Status: 9}) }),
	"truncated": stay(func(f *fake) { f.must(f.conn.Send(protocol.KindResult, make([]byte, protocol.ResultHeader-1))) }),
	"twice": stay(func(f *fake) {
		for range 2 {
			f.answer(protocol.Result{Source: protocol.RunSource, ID: f.id, Data: make([]byte, 3)})
		}
	}),
	"hugefile":    stay(func(f *fake) { f.memfd(1<<30, 64<<20, true) }),
	"shortfile":   stay(func(f *fake) { f.memfd(3, 2, true) }),
	"unsealed":    stay(func(f *fake) { f.memfd(3, 3, false) }),
	"nofile":      stay(func(f *fake) { f.claim(3) }),
	"foreignfile": stay(func(f *fake) { f.claim(3, 2) }),
	"manyfiles":   stay(func(f *fake) { f.claim(3, 2, 2, 2) }),
}

// claim answers with a header that says that n bytes are in the descriptors.
func (f *fake) claim(n int, fds ...int) {
	r := protocol.Result{Source: protocol.RunSource, ID: f.id}
	b := r.Append(nil)
	b[protocol.ResultHeader-4], b[protocol.ResultHeader-3], b[protocol.ResultHeader-2], b[protocol.ResultHeader-1] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	f.must(f.conn.Send(protocol.KindResult, b, fds...))
}

func (f *fake) memfd(claimed int, size int64, seal bool) {
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	f.must(err)
	f.must(unix.Ftruncate(fd, size))
	if seal {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
		f.must(err)
	}
	f.claim(claimed, fd)
}
