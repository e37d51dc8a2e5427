package train

import "math/rand/v2"

// Streams of random numbers that start from the same seed must not overlap:
// each use has its own number.
const (
	streamInit      = 1
	streamCalibrate = 2
	streamOrder     = 1 << 32
	streamAugment   = 1 << 40
)

// order is a permutation of n for one epoch.
func order(seed uint64, epoch, n int) []int {
	return rand.New(rand.NewPCG(seed, streamOrder+uint64(epoch))).Perm(n)
}

// augmentation varies one planar picture; scratch has the same size. What it
// does depends on seed, epoch and picture only, not on who does it when.
func (a Augment) apply(x, scratch []float32, s Shape, seed uint64, epoch, picture int) {
	if a.Shift == 0 && !a.Flip {
		return
	}
	var src rand.PCG
	src.Seed(seed^uint64(picture)*0x9e3779b97f4a7c15, streamAugment+uint64(epoch))
	bits := src.Uint64()
	side := uint64(2*a.Shift + 1)
	dx, dy := int(bits>>1%side)-a.Shift, int(bits>>32%side)-a.Shift
	flip := a.Flip && bits&1 == 1
	copy(scratch, x)
	for c := range s.Channels {
		from, to := scratch[c*s.Height*s.Width:], x[c*s.Height*s.Width:]
		for y := range s.Height {
			line := from[min(max(y-dy, 0), s.Height-1)*s.Width:]
			for i := range s.Width {
				j := min(max(i-dx, 0), s.Width-1)
				if flip {
					j = s.Width - 1 - j
				}
				to[y*s.Width+i] = line[j]
			}
		}
	}
}
