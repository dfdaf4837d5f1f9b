//go:build !race

package nucleus_test

const raceDetector = false
