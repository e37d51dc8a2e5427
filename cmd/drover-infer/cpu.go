package main

import (
	"bufio"
	"io"
	"io/fs"
	"strings"
)

// cpuModel names the processor as /proc/cpuinfo does; empty if it does not.
func cpuModel(proc fs.FS) string {
	f, err := proc.Open("cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	var implementer, part string
	lines := bufio.NewScanner(io.LimitReader(f, 1<<20))
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			return value
		case "CPU implementer": // arm64 has numbers only
			implementer = value
		case "CPU part":
			part = value
		}
	}
	if part == "" {
		return ""
	}
	return "arm " + implementer + "/" + part
}
