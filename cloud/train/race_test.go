//go:build race

package train

// raceDetector makes the long tests shorter: they would take minutes.
const raceDetector = true
