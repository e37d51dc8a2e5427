package anchor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// guillotine kills the emulator at the n-th command from now: before the
// command reaches it, or after it was carried out and before the answer is
// read.
type guillotine struct {
	t     *testing.T
	e     *emulator
	n     int // commands left; 0: never
	after bool
	fell  bool
	count int
}

func (g *guillotine) options(dir string) Options {
	o := g.e.options(dir)
	o.dial = func() (transport.TPMCloser, error) {
		c, err := dial(o.Device)
		if err != nil {
			return nil, err
		}
		return wire{&blade{c, g}}, nil
	}
	return o
}

type blade struct {
	transport.TPMCloser
	g *guillotine
}

func (b *blade) Send(cmd []byte) ([]byte, error) {
	g := b.g
	g.count++
	g.n--
	if g.n != 0 {
		return b.TPMCloser.Send(cmd)
	}
	if g.after {
		if _, err := b.TPMCloser.Send(cmd); err != nil {
			return nil, err
		}
	}
	g.e.kill(g.t)
	g.fell = true
	return nil, errors.New("the power is gone")
}

// everyCut runs do with a cut at its first command, then at its second, and so
// on until it comes through; after each cut the emulator has power again and
// check looks at what it left.
func everyCut(t *testing.T, prepare func(t *testing.T, g *guillotine), do func(g *guillotine) error, check func(t *testing.T, g *guillotine)) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, after := range []bool{false, true} {
		for n, through := 1, false; !through; n += step {
			t.Run(fmt.Sprintf("command %d, carried out %v", n, after), func(t *testing.T) {
				g := &guillotine{t: t, e: newEmulator(t)}
				prepare(t, g)
				g.n, g.after = n, after
				err := do(g)
				if g.n = 0; !g.fell {
					through = true
					if err != nil {
						t.Fatal(err)
					}
					if n < 5 {
						t.Fatalf("only %d commands: nothing was cut", n-1)
					}
				} else {
					if !errors.Is(err, ErrUnavailable) {
						t.Fatalf("cut: %v", err)
					}
					g.e.start(t)
				}
				check(t, g)
			})
			if n > 300 {
				t.Fatal("no end")
			}
			if t.Failed() {
				return
			}
		}
	}
}

func TestCutWhileProvisioning(t *testing.T) {
	var dir string
	run := func(g *guillotine) error {
		o := g.options(dir)
		o.TakeOwner = true // the longest way
		a, err := OpenTPM(t.Context(), o)
		if err != nil {
			return err
		}
		_, err = a.Epoch()
		return errors.Join(err, a.Close())
	}
	everyCut(t, func(t *testing.T, _ *guillotine) {
		dir = t.TempDir()
		if err := openFile(t, dir).Raise(2); err != nil {
			t.Fatal(err)
		}
	}, run, func(t *testing.T, g *guillotine) {
		if err := run(g); err != nil {
			t.Fatalf("again: %v", err)
		}
		a := openTPM(t, g.e, dir)
		wantEpoch(t, a, 2)
		s, err := a.Signer()
		if err != nil {
			t.Fatal(err)
		}
		checkSignatures(t, s)
		if fileExists(dir) {
			t.Error("the file anchor is still there")
		}
	})
}

func TestCutWhileRaising(t *testing.T) {
	var a *TPM
	everyCut(t, func(t *testing.T, g *guillotine) {
		a = openTPM(t, g, t.TempDir())
		if err := a.Raise(1); err != nil {
			t.Fatal(err)
		}
	}, func(*guillotine) error { return a.Raise(5) }, func(t *testing.T, _ *guillotine) {
		e, err := a.Epoch()
		if err != nil || e < 1 || e > 5 {
			t.Fatalf("epoch %d, %v", e, err)
		}
		if err := a.Raise(5); err != nil {
			t.Fatal(err)
		}
		wantEpoch(t, a, 5)
	})
}

func (g *guillotine) cut(t testing.TB)                     { g.e.cut(t) }
func (g *guillotine) raw(t testing.TB) transport.TPMCloser { return g.e.raw(t) }

// A cut after the last command, before the complete record was written.
func TestCutBeforeTheRecordIsComplete(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	a := openTPM(t, e, dir)
	key, err := a.Signer()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a.rec.Stage, a.rec.Zero, a.rec.Public = stageProvisioning, 0, nil
	a.rec.Counter.Name, a.rec.Base.Name, a.rec.Key.Name = nil, nil, nil
	if err := a.rec.save(dir); err != nil {
		t.Fatal(err)
	}
	b := openTPM(t, e, dir)
	wantEpoch(t, b, 0)
	again, err := b.Signer()
	if err != nil {
		t.Fatal(err)
	}
	if !key.(*signer).pub.Equal(again.Public()) {
		t.Error("another key was made")
	}
}

// Between a cut and the next run somebody may take the handle, even with the
// secret.
func TestIndexReplacedWhileProvisioningWasCut(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	r, err := newRecord(e.options(dir).withDefaults(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.save(dir); err != nil {
		t.Fatal(err)
	}
	behind(t, e, nil, func(c transport.TPM) error {
		p := r.template(r.Base.Handle)
		p.NVIndex, p.DataSize = r.Counter.Handle, 8
		return define(c, p, r.auth(authNV), make([]byte, 8))
	})
	if _, err := OpenTPM(t.Context(), e.options(dir)); !errors.Is(err, ErrTampered) {
		t.Fatal(err)
	}
}

func TestTPMComesAndGoes(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	a := openTPM(t, e, dir)
	if err := a.Raise(2); err != nil {
		t.Fatal(err)
	}
	e.kill(t)
	gone := func(a Anchor) {
		t.Helper()
		if _, err := a.Epoch(); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrTampered) {
			t.Errorf("epoch: %v", err)
		}
		if err := a.Raise(3); !errors.Is(err, ErrUnavailable) {
			t.Errorf("raise: %v", err)
		}
		s, err := a.Signer()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sign(nil, make([]byte, 32), sha256Hash); !errors.Is(err, ErrUnavailable) {
			t.Errorf("sign: %v", err)
		}
	}
	gone(a)
	// A device that starts without its TPM waits for it, in every configuration.
	for _, device := range []string{Auto, e.device} {
		b, err := Open(t.Context(), Options{Device: device, Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if b.Assurance() != InHardware {
			t.Errorf("tpm: %s: assurance %q", device, b.Assurance())
		}
		gone(b)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	e.start(t)
	wantEpoch(t, a, 2)
	s, err := a.Signer()
	if err != nil {
		t.Fatal(err)
	}
	checkSignatures(t, s)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Epoch(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("closed: %v", err)
	}
}

// A process that was killed leaves sessions and objects in a TPM without a
// resource manager; they would fill it.
func TestLeftoversAreFlushed(t *testing.T) {
	e := newEmulator(t)
	for range 5 {
		behind(t, e, nil, func(c transport.TPM) error {
			if _, _, err := tpm2.HMACSession(c, tpm2.TPMAlgSHA256, 16); err != nil {
				return err
			}
			_, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c)
			return err
		})
	}
	wantEpoch(t, openTPM(t, e, t.TempDir()), 0)
}

// Nothing of ours is left loaded when a call returns.
func TestNothingStaysLoaded(t *testing.T) {
	e := newEmulator(t)
	a := openTPM(t, e, t.TempDir())
	if err := a.Raise(2); err != nil {
		t.Fatal(err)
	}
	if s, err := a.Signer(); err != nil {
		t.Fatal(err)
	} else if _, err := s.Sign(nil, make([]byte, 32), sha256Hash); err != nil {
		t.Fatal(err)
	}
	for _, from := range flushable {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: from, PropertyCount: 64}.Execute(a.conn)
		if err != nil {
			t.Fatal(err)
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil || len(list.Handle) != 0 {
			t.Errorf("left: %x %v", list.Handle, err)
		}
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "anchor")
	openTPM(t, newEmulator(t), dir)
	for _, name := range recordCopies {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, fi.Mode(), err)
		}
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
}
