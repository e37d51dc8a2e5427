package main

import (
	"fmt"
	"regexp"
	"strings"
)

// complain tells a person what went wrong: one line, and one more where there
// is something to do.
func (a *app) complain(err error, c class) {
	if c.code == exitInterrupted {
		fmt.Fprintln(a.errOut, "error: interrupted")
		return
	}
	hint := hintFor(err)
	text := oneLine(err.Error())
	if hint != "" {
		text = strings.Replace(text, "; "+oneLine(hint), "", 1) // some errors carry their hint
	}
	fmt.Fprintln(a.errOut, "error:", text)
	if hint != "" {
		fmt.Fprintln(a.errOut, "hint:", oneLine(hint))
	}
}

// maxLine is how long an error may get, in characters.
const maxLine = 400

// oneLine makes an error readable: on one line, without the names of packages,
// which tell a person nothing.
func oneLine(s string) string {
	packages := regexp.MustCompile(`(^|: |; )(?:(?:cloud|registry|identity|publish|broker|dataset|evaluate|train|rollout|infer|infer/host|host|modelfile|tflite|trust|wire|cage): )+`)
	s = packages.ReplaceAllString(strings.ReplaceAll(s, "\n", "; "), "$1")
	if r := []rune(s); len(r) > maxLine {
		s = string(r[:maxLine-1]) + "…" // a runtime may complain of every tensor
	}
	return s
}
