// Package version holds what is stamped into the programs at build time.
package version

import (
	"strconv"
	"time"
)

// Set by the linker; the values here are those of a plain go build.
var (
	Version   = "devel"
	Committed = "" // Unix seconds of the source's last commit
)

// Time is when the source was committed: a moment that no device's present can
// lie before. Zero in a plain go build.
func Time() time.Time {
	s, err := strconv.ParseInt(Committed, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(s, 0)
}
