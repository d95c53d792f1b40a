//go:build race

package enginesim

// raceDetector is on: what takes seconds would take minutes.
const raceDetector = true
