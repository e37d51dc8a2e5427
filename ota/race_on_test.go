//go:build race

package ota_test

// crashDefault is one in how many points of the crash matrix is tried; the
// race detector makes each several times as slow.
func crashDefault(short bool) int {
	if short {
		return 100
	}
	return 30
}
