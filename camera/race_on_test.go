//go:build race

package camera

// raceDetector is on: the standard library then allocates where it does not
// otherwise.
const raceDetector = true
