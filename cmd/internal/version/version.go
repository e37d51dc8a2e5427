// Package version holds the version stamped into the programs at build time.
package version

// Version is set by the linker; "devel" in a plain go build.
var Version = "devel"
