package anchor

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

func open(t *testing.T, o Options) Anchor {
	t.Helper()
	a, err := Open(t.Context(), o)
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

// automatic looks for a TPM as a device without a configured one does, and
// finds e.
func automatic(e *emulator, dir string) Options {
	return Options{Device: Auto, Dir: dir, dial: func() (transport.TPMCloser, error) { return dial(e.device) }}
}

func wantTampered(t *testing.T, a Anchor, text string) {
	t.Helper()
	e, err := a.Epoch()
	if !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), text) {
		t.Fatalf("epoch %d, %v; wanted ErrTampered that says %q", e, err, text)
	}
	if a.Assurance() != InHardware {
		t.Fatalf("assurance %q", a.Assurance())
	}
}

func TestOpenTakesATPMThatIsThere(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	a := open(t, automatic(e, dir))
	wantEpoch(t, a, 0)
	if a.Assurance() != InHardware {
		t.Fatal(a.Assurance())
	}
}

func TestOpenWithoutATPM(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	e.kill(t)
	a := open(t, automatic(e, dir))
	if a.Assurance() != Software {
		t.Fatal(a.Assurance())
	}
	if err := a.Raise(4); err != nil {
		t.Fatal(err)
	}
	// One that appears later is not taken without being asked for.
	e.start(t)
	a = open(t, automatic(e, dir))
	wantEpoch(t, a, 4)
	if a.Assurance() != Software {
		t.Fatal(a.Assurance())
	}
	// Being asked for, it takes the epoch over.
	a = open(t, e.options(dir))
	wantEpoch(t, a, 4)
	if a.Assurance() != InHardware {
		t.Fatal(a.Assurance())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	// And it stays: neither "off" nor a folder without its record is a way back.
	wantTampered(t, open(t, Options{Device: Off, Dir: dir}), "off")
	if _, err := OpenFile(dir); !errors.Is(err, ErrTampered) {
		t.Fatalf("file anchor beside a record: %v", err)
	}
	for _, name := range recordCopies {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	wantTampered(t, open(t, automatic(e, dir)), "taken")
	openFile(t, dir)
	wantTampered(t, open(t, automatic(e, dir)), "taken")
	wantTampered(t, open(t, e.options(dir)), "taken")
}

func TestOpenWaitsForAConfiguredTPM(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	e.kill(t)
	a := open(t, e.options(dir))
	if _, err := a.Epoch(); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if _, err := a.Signer(); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	if _, err := OpenTPM(t.Context(), e.options(t.TempDir())); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	e.start(t)
	s, err := a.Signer()
	if err != nil {
		t.Fatal(err)
	}
	checkSignatures(t, s)
	wantEpoch(t, a, 0)
}

func TestOpenKeepsADamagedFileAnchorFromBeingReplaced(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	openFile(t, dir)
	for _, name := range copies {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := open(t, e.options(dir)).Epoch(); !errors.Is(err, ErrTampered) {
		t.Fatal(err)
	}
}

func TestProvisioningMayBeStopped(t *testing.T) {
	e, dir := newEmulator(t), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := OpenTPM(ctx, e.options(dir)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	wantEpoch(t, openTPM(t, e, dir), 0)
}

func TestForeignHandles(t *testing.T) {
	for name, take := range map[string]func(c transport.TPM) error{
		"counter": func(c transport.TPM) error {
			return define(c, tpm2.TPMSNVPublic{NVIndex: DefaultNVIndexBase, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
				Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, NoDA: true, NT: tpm2.TPMNTCounter}}, nil, nil)
		},
		"key": func(c transport.TPM) error {
			rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(c)
			if err != nil {
				return err
			}
			_, err = tpm2.EvictControl{Auth: tpm2.TPMRHOwner, ObjectHandle: tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, PersistentHandle: DefaultKeyHandle}.Execute(c)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			e, dir := newEmulator(t), t.TempDir()
			behind(t, e, nil, take)
			if _, err := OpenTPM(t.Context(), e.options(dir)); !errors.Is(err, ErrTampered) {
				t.Fatal(err)
			}
			wantTampered(t, open(t, automatic(e, dir)), "taken")
			// Other handles are free.
			o := e.options(dir)
			o.NVIndexBase, o.KeyHandle = DefaultNVIndexBase+16, DefaultKeyHandle+16
			wantEpoch(t, open(t, o), 0)
		})
	}
}

func TestEpochBeginsAtZeroInAUsedTPM(t *testing.T) {
	e := newEmulator(t)
	const h = 0x01800100
	behind(t, e, nil, func(c transport.TPM) error {
		pub := tpm2.TPMSNVPublic{NVIndex: h, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
			Attributes: tpm2.TPMANV{AuthWrite: true, AuthRead: true, NoDA: true, NT: tpm2.TPMNTCounter}}
		for range 20 {
			if err := errors.Join(define(c, pub, nil, nil), undefine(c, h)); err != nil {
				return err
			}
		}
		return nil
	})
	a := openTPM(t, e, t.TempDir())
	wantEpoch(t, a, 0)
	if a.rec.Zero < 20 {
		t.Fatalf("the counter began at %d: this TPM forgets deleted counters", a.rec.Zero)
	}
	if err := a.Raise(MaxRaise + 1); !errors.Is(err, ErrRange) {
		t.Fatal(err)
	}
	if err := a.Raise(1<<64 - 1); !errors.Is(err, ErrRange) {
		t.Fatal(err)
	}
	wantEpoch(t, a, 0)
}
