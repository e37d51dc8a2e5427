package host

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
)

const (
	tailBytes = 4096
	lineBytes = 1024
)

// stderrTail keeps the end of what a child writes to stderr and logs the lines
// at debug level. It is safe for concurrent use.
type stderrTail struct {
	logger *slog.Logger

	mu   sync.Mutex
	tail []byte
	line []byte
}

// Write never fails.
func (t *stderrTail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tail = append(t.tail, p[max(0, len(p)-tailBytes):]...)
	if over := len(t.tail) - tailBytes; over > 0 {
		t.tail = append(t.tail[:0], t.tail[over:]...)
	}
	if t.logger.Enabled(context.Background(), slog.LevelDebug) {
		t.log(p)
	}
	return len(p), nil
}

func (t *stderrTail) log(p []byte) {
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
			p = p[end+1:]
		} else {
			p = nil
		}
		if room := lineBytes - len(t.line); room > 0 {
			t.line = append(t.line, part[:min(room, len(part))]...)
		}
		if end >= 0 {
			t.logger.Debug("stderr of "+ProgramName, "line", clean(string(t.line), lineBytes))
			t.line = t.line[:0]
		}
	}
}

// String is the tail so far.
func (t *stderrTail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := bytes.Split(t.tail, []byte("\n"))
	out := make([]byte, 0, len(t.tail))
	for _, l := range lines {
		out = append(append(out, clean(string(l), tailBytes)...), '\n')
	}
	return string(bytes.TrimSpace(out))
}
