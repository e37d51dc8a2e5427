//go:build !race

package ota_test

// crashDefault is one in how many points of the crash matrix is tried.
func crashDefault(short bool) int {
	if short {
		return 20
	}
	return 4
}
