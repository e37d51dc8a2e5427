package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/opencv"
)

const (
	probeFrames  = 10
	probeTimeout = 15 * time.Second
)

// probe opens a source, reads some frames and prints one line about it. It
// returns the exit code.
func probe(url string, stdout, stderr io.Writer) int {
	src, err := camera.ParseSource(url)
	if err != nil {
		fmt.Fprintln(stderr, "drover-camera:", err)
		return exitFault
	}
	type answer struct {
		line string
		err  error
	}
	// Native code may hang; the process then ends around this goroutine.
	done := make(chan answer, 1)
	go func() {
		line, err := look(src)
		done <- answer{line, err}
	}()
	got := answer{err: fmt.Errorf("%s does not deliver %d frames within %v", src, probeFrames, probeTimeout)}
	select {
	case got = <-done:
	case <-time.After(probeTimeout):
	}
	if got.err != nil {
		var fault *camera.Fault
		if errors.As(got.err, &fault) {
			got.err = fault.Err // its kind is for programs
		}
		fmt.Fprintln(stderr, "drover-camera:", got.err)
		return exitFault
	}
	fmt.Fprintln(stdout, got.line)
	return exitOK
}

// look reads frames as fast as they come. A replay may hold fewer than asked.
func look(src camera.Source) (string, error) {
	patience := probeTimeout * 2 / 3
	capture, err := opencv.Open(context.Background(), src, opencv.Patience{Open: patience, Read: camera.DefaultStuckAfter})
	if err != nil {
		return "", err
	}
	defer capture.Close()
	var f camera.Frame
	var first time.Duration
	n := 0
	for ; n < probeFrames; n++ {
		err := capture.Read(&f)
		var fault *camera.Fault
		if n > 0 && errors.As(err, &fault) && fault.Kind == camera.FaultEnd {
			break
		}
		if err != nil {
			return "", err
		}
		if n == 0 {
			first = f.CapturedAt
		}
	}
	info := capture.Info()
	newPace(src, &info) // for the rate at which it would be replayed
	rate := "frame rate unknown"
	switch {
	case src.Live() && n > 1 && f.CapturedAt > first:
		rate = fmt.Sprintf("%.1f fps measured", float64(n-1)/(f.CapturedAt-first).Seconds())
	case info.FPS > 0:
		rate = fmt.Sprintf("%.1f fps", info.FPS)
	}
	return fmt.Sprintf("%s: %d×%d %v, %s, %d frames read, backend %s", src, f.Width, f.Height, f.Format, rate, n, info.Backend), nil
}
