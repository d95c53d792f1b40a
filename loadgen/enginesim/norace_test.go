//go:build !race

package enginesim

const raceDetector = false
