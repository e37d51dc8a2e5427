package host

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
)

const (
	tailBytes = 4096
	lineBytes = 1024
)

// headlines are how the line begins in which a program says why it ends, before
// it prints stacks that push this line out.
var headlines = []string{"panic: ", "fatal error: ", "SIG", "terminate called"}

// stderrTail keeps the end of what a child writes to stderr, and the first
// headline. It logs the lines at debug level. It is safe for concurrent use.
type stderrTail struct {
	logger *slog.Logger

	mu     sync.Mutex
	tail   []byte
	line   []byte // the one that is not complete yet, at most lineBytes
	reason string
}

// Write never fails.
func (t *stderrTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tail = append(t.tail, p[max(0, len(p)-tailBytes):]...)
	if over := len(t.tail) - tailBytes; over > 0 {
		t.tail = append(t.tail[:0], t.tail[over:]...)
	}
	for rest := p; len(rest) > 0; {
		part, after, complete := bytes.Cut(rest, []byte("\n"))
		rest = after
		t.line = append(t.line, part[:min(lineBytes-len(t.line), len(part))]...)
		if complete {
			t.endLine()
		}
	}
	return len(p), nil
}

func (t *stderrTail) endLine() {
	for _, h := range headlines {
		if t.reason == "" && bytes.HasPrefix(t.line, []byte(h)) {
			t.reason = clean(string(t.line), lineBytes)
		}
	}
	if t.logger.Enabled(context.Background(), slog.LevelDebug) {
		t.logger.Debug("stderr of "+ProgramName, "line", clean(string(t.line), lineBytes))
	}
	t.line = t.line[:0]
}

// lastWords is the line that tells most, and the tail.
func (t *stderrTail) lastWords() (line, tail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var lines []string
	for l := range bytes.SplitSeq(bytes.TrimSpace(t.tail), []byte("\n")) {
		lines = append(lines, clean(string(l), lineBytes))
	}
	line = t.reason
	if line == "" && len(lines) > 0 {
		line = lines[len(lines)-1]
	}
	return line, strings.Join(lines, "\n")
}
