package anchor

import (
	"errors"
	"sync"
	"testing"
)

// TestContract runs on everything an anchor can stand on; simulator_test.go
// adds the simulator.
func TestContract(t *testing.T) {
	t.Run("file", func(t *testing.T) { contract(t, disk{}) })
	t.Run("swtpm on a Unix socket", func(t *testing.T) { contract(t, newEmulator(t)) })
	t.Run("swtpm on TCP", func(t *testing.T) { contract(t, newTCPEmulator(t)) })
}

func contract(t *testing.T, m machine) {
	dir := t.TempDir()
	reopen := func() Anchor {
		t.Helper()
		a, err := Open(t.Context(), m.options(dir))
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := reopen()
	wantEpoch(t, a, 0)
	for _, to := range []uint64{0, 3, 3, 1} {
		if err := a.Raise(to); err != nil {
			t.Fatal(err)
		}
	}
	wantEpoch(t, a, 3)
	m.cut(t)
	wantEpoch(t, a, 3)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = reopen()
	wantEpoch(t, a, 3)
	contractConcurrent(t, a)
	wantEpoch(t, a, 8)

	s, err := a.Signer()
	switch a.Assurance() {
	case Software:
		if !errors.Is(err, ErrNoKey) {
			t.Fatalf("key of a file anchor: %v", err)
		}
	case InHardware:
		if err != nil {
			t.Fatal(err)
		}
		checkSignatures(t, s)
	default:
		t.Fatalf("assurance %q", a.Assurance())
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
}

func contractConcurrent(t *testing.T, a Anchor) {
	t.Helper()
	var wg sync.WaitGroup
	for to := uint64(4); to <= 8; to++ {
		wg.Go(func() {
			if err := a.Raise(to); err != nil {
				t.Error(err)
			}
			if e, err := a.Epoch(); err != nil || e < to {
				t.Errorf("epoch %d after it was raised to %d: %v", e, to, err)
			}
		})
	}
	wg.Wait()
}
