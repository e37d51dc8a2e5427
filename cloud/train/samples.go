package train

import "fmt"

// Samples are labelled pictures, numbered from 0. Implementations must be safe
// for concurrent use and give the same answers each time.
type Samples interface {
	// Len is the number of pictures.
	Len() int
	// Class is the class of picture i, in [0, classes).
	Class(i int) int
	// Pixels writes the real input values of picture i, that is
	// (pixel − mean) ÷ std, into dst, which has height × width × channels
	// elements in that order. It is called once per picture and epoch: keep
	// prepared pictures in memory.
	Pixels(i int, dst []float32) error
}

// checkSamples finds classes out of range before hours are spent.
func checkSamples(s Samples, classes int) error {
	if s == nil || s.Len() == 0 {
		return fmt.Errorf("%w: no pictures", ErrData)
	}
	for i := range s.Len() {
		if c := s.Class(i); c < 0 || c >= classes {
			return fmt.Errorf("%w: picture %d has class %d, the spec has %d classes", ErrData, i, c, classes)
		}
	}
	return nil
}

// toPlanar turns [height, width, channels] into [channels, height, width].
func toPlanar(src, dst []float32, s Shape) {
	if s.Channels == 1 {
		copy(dst, src)
		return
	}
	area := s.Height * s.Width
	for p := range area {
		for c := range s.Channels {
			dst[c*area+p] = src[p*s.Channels+c]
		}
	}
}
