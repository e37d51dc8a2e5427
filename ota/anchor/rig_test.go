package anchor

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// machine is something an anchor can stand on.
type machine interface {
	// options are those that open its anchor in dir.
	options(dir string) Options
	// cut takes its power away without warning and gives it back.
	cut(t testing.TB)
	// raw is an access to the TPM beside the anchor's. The anchor must have
	// let go before: an emulator serves one client at a time.
	raw(t testing.TB) transport.TPMCloser
}

// disk is a machine without a TPM.
type disk struct{}

func (disk) options(dir string) Options           { return Options{Device: Off, Dir: dir} }
func (disk) cut(testing.TB)                       {}
func (disk) raw(t testing.TB) transport.TPMCloser { t.Fatal("no TPM"); return nil }

// emulator is an swtpm process over a folder.
type emulator struct {
	dir    string
	server string // its argument
	device string // ours
	cmd    *exec.Cmd
}

// newEmulator starts an swtpm on a Unix socket; it skips the test where swtpm
// is not installed.
func newEmulator(t testing.TB) *emulator {
	t.Helper()
	dir := shortDir(t)
	path := filepath.Join(dir, "sock")
	return startEmulator(t, &emulator{dir: dir, server: "type=unixio,path=" + path, device: path})
}

func newTCPEmulator(t testing.TB) *emulator {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	return startEmulator(t, &emulator{dir: shortDir(t), server: "type=tcp,bindaddr=127.0.0.1,port=" + port, device: "tcp:" + addr})
}

func startEmulator(t testing.TB, e *emulator) *emulator {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skip("swtpm is not installed (Debian: apt install swtpm)")
	}
	e.start(t)
	t.Cleanup(func() { e.kill(t) })
	return e
}

// shortDir is a folder whose path leaves room for a socket's name (108 bytes).
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (e *emulator) start(t testing.TB) {
	t.Helper()
	e.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+e.dir, "--server", e.server, "--flags", "not-need-init")
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; {
		c, err := dial(e.device)
		if err == nil {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatalf("swtpm does not answer: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// kill ends the process as a power cut would.
func (e *emulator) kill(t testing.TB) {
	t.Helper()
	if e.cmd == nil {
		return
	}
	if err := e.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = e.cmd.Wait() // says that it was killed
	e.cmd = nil
	_ = os.Remove(filepath.Join(e.dir, "sock")) // there is none with TCP
}

func (e *emulator) options(dir string) Options { return Options{Device: e.device, Dir: dir} }

func (e *emulator) cut(t testing.TB) {
	t.Helper()
	e.kill(t)
	e.start(t)
}

func (e *emulator) raw(t testing.TB) transport.TPMCloser {
	t.Helper()
	c, err := dial(e.device)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// behind lets fn use the TPM behind the anchor's back.
func behind(t testing.TB, m machine, a *TPM, fn func(transport.TPM) error) {
	t.Helper()
	if a != nil {
		a.mu.Lock()
		defer a.mu.Unlock()
		if err := a.drop(); err != nil {
			t.Fatal(err)
		}
	}
	c := m.raw(t)
	err := fn(c)
	if e := c.Close(); e != nil {
		t.Fatal(e)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func openTPM(t testing.TB, m machine, dir string) *TPM {
	t.Helper()
	a, err := OpenTPM(t.Context(), m.options(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func wantEpoch(t testing.TB, a Anchor, want uint64) {
	t.Helper()
	got, err := a.Epoch()
	if err != nil || got != want {
		t.Fatalf("epoch %d, %v; wanted %d", got, err, want)
	}
}

// undefine is what any user of the TPM can do while the owner's auth value is
// empty.
func undefine(c transport.TPM, h tpm2.TPMHandle) error {
	rsp, err := tpm2.NVReadPublic{NVIndex: h}.Execute(c)
	if err != nil {
		return err
	}
	_, err = tpm2.NVUndefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: h, Name: rsp.NVName},
	}.Execute(c)
	return err
}

// define defines an index, and increments or writes and locks it as ours are.
func define(c transport.TPM, pub tpm2.TPMSNVPublic, auth, content []byte) error {
	pub.Attributes.Written, pub.Attributes.WriteLocked = false, false
	if _, err := (tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		Auth:       tpm2.TPM2BAuth{Buffer: auth}, PublicInfo: tpm2.New2B(pub),
	}).Execute(c); err != nil {
		return err
	}
	name := func() (thing, error) {
		rsp, err := tpm2.NVReadPublic{NVIndex: pub.NVIndex}.Execute(c)
		if err != nil {
			return thing{}, err
		}
		return thing{pub.NVIndex, rsp.NVName.Buffer}, nil
	}
	x, err := name()
	if err != nil {
		return err
	}
	if pub.Attributes.NT == tpm2.TPMNTCounter {
		_, err = tpm2.NVIncrement{AuthHandle: x.authorized(tpm2.PasswordAuth(auth)), NVIndex: x.named()}.Execute(c)
		return err
	}
	if _, err = (tpm2.NVWrite{AuthHandle: x.authorized(tpm2.PasswordAuth(auth)), NVIndex: x.named(), Data: tpm2.TPM2BMaxNVBuffer{Buffer: content}}).Execute(c); err != nil {
		return err
	}
	if x, err = name(); err != nil {
		return err
	}
	_, err = tpm2.NVWriteLock{AuthHandle: x.authorized(tpm2.PasswordAuth(auth)), NVIndex: x.named()}.Execute(c)
	return err
}
