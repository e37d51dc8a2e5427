package anchor

import "testing"

// The times are those of an emulator: a TPM on a bus takes 10 to 100 times as
// long.
func benchmark(b *testing.B, do func(a *TPM, i int) error) {
	a := openTPM(b, newEmulator(b), b.TempDir())
	for i := 0; b.Loop(); i++ {
		if err := do(a, i); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEpoch(b *testing.B) {
	benchmark(b, func(a *TPM, _ int) error {
		_, err := a.Epoch()
		return err
	})
}

func BenchmarkRaise(b *testing.B) {
	benchmark(b, func(a *TPM, i int) error { return a.Raise(uint64(i + 1)) })
}

func BenchmarkSign(b *testing.B) {
	digest := make([]byte, 32)
	benchmark(b, func(a *TPM, _ int) error {
		s, err := a.Signer()
		if err != nil {
			return err
		}
		_, err = s.Sign(nil, digest, sha256Hash)
		return err
	})
}

func BenchmarkProvision(b *testing.B) {
	for b.Loop() {
		a, err := OpenTPM(b.Context(), newEmulator(b).options(b.TempDir()))
		if err != nil {
			b.Fatal(err)
		}
		if err := a.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
