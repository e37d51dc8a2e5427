//go:build cgo

package anchor

import (
	"testing"

	"github.com/google/go-tpm-tools/simulator"
	"github.com/google/go-tpm/tpm2/transport"
)

// simulated is the reference implementation in this process. There can be one
// at a time.
type simulated struct{ sim *simulator.Simulator }

func newSimulator(t testing.TB) simulated {
	t.Helper()
	s, err := simulator.Get()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return simulated{s}
}

// shared does not close what others use too.
type shared struct{ transport.TPM }

func (shared) Close() error { return nil }

func (s simulated) options(dir string) Options {
	return Options{Device: "simulator", Dir: dir, dial: func() (transport.TPMCloser, error) {
		return wire{shared{transport.FromReadWriter(s.sim)}}, nil
	}}
}

func (s simulated) cut(t testing.TB) {
	t.Helper()
	if err := s.sim.Reset(); err != nil {
		t.Fatal(err)
	}
}

func (s simulated) raw(t testing.TB) transport.TPMCloser {
	t.Helper()
	c, err := s.options("").dial()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestContractOnSimulator(t *testing.T) { contract(t, newSimulator(t)) }

func TestAttacksOnSimulator(t *testing.T) {
	for _, tc := range attacks {
		t.Run(tc.name, func(t *testing.T) { attacked(t, newSimulator(t), tc) })
	}
}
