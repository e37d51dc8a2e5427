//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"context"
	"math"
	"time"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
)

// Numbers of OpenCV's capture properties that gocv has no names for.
const (
	propBackend     gocv.VideoCaptureProperties = 42
	propOpenTimeout gocv.VideoCaptureProperties = 53 // milliseconds
	propReadTimeout gocv.VideoCaptureProperties = 54 // milliseconds
)

// video reads through cv::VideoCapture.
type video struct {
	src      camera.Source
	patience Patience
	capture  *gocv.VideoCapture
	about    Info
	frames   uint64 // since it was last opened
}

func openVideo(ctx context.Context, src camera.Source, patience Patience) (*video, error) {
	v := &video{src: src, patience: patience}
	if err := v.reachable(ctx); err != nil {
		return nil, err
	}
	start := time.Now()
	if err := v.open(); err != nil {
		return nil, v.whyNotOpen(time.Since(start))
	}
	v.about = Info{Backend: backendName(v.capture), FPS: sane(v.capture.Get(gocv.VideoCaptureFPS))}
	return v, nil
}

// reachable says in plain words what OpenCV would only answer with "false".
func (v *video) reachable(ctx context.Context) error {
	switch v.src.Kind {
	case camera.SourceV4L2:
		return checkDevice(v.src.Path)
	case camera.SourceFile:
		return checkFile(v.src.Path)
	case camera.SourceRTSP, camera.SourceHTTP:
		left, err := checkHost(ctx, v.src, v.patience.Open)
		v.patience.Open = left
		return err
	}
	return nil
}

// open opens the source, which is known to be there; also for the next round
// of a loop.
func (v *video) open() error {
	var err error
	v.frames = 0
	switch v.src.Kind {
	case camera.SourceV4L2:
		v.capture, err = gocv.VideoCaptureFileWithAPI(v.src.Path, gocv.VideoCaptureV4L2)
	case camera.SourceGst:
		v.capture, err = gocv.VideoCaptureFileWithAPI(v.src.Pipeline, gocv.VideoCaptureGstreamer)
	case camera.SourceFile:
		v.capture, err = gocv.VideoCaptureFileWithAPI(v.src.Path, streamBackend(gocv.VideoCaptureAny))
	default:
		params := []gocv.VideoCaptureProperties{
			propOpenTimeout, milliseconds(v.patience.Open),
			propReadTimeout, milliseconds(v.patience.Read),
		}
		v.capture, err = gocv.VideoCaptureFileWithAPIParams(v.src.URL(), streamBackend(gocv.VideoCaptureGstreamer), params)
	}
	if err != nil || !v.capture.IsOpened() {
		v.capture.Close()
		v.capture = nil
		// gocv's message quotes the URL: not to be passed on.
		return faultf(camera.FaultDecode, "OpenCV cannot open %s", v.src)
	}
	if v.src.Kind == camera.SourceV4L2 {
		v.configure()
	}
	return nil
}

// configure asks the device for what the source names. What it really gives
// shows in the frames.
func (v *video) configure() {
	if v.src.Format != "" {
		v.capture.Set(gocv.VideoCaptureFOURCC, v.capture.ToCodec(v.src.Format))
	}
	if v.src.Width > 0 {
		v.capture.Set(gocv.VideoCaptureFrameWidth, float64(v.src.Width))
		v.capture.Set(gocv.VideoCaptureFrameHeight, float64(v.src.Height))
	}
	if v.src.FPS > 0 {
		v.capture.Set(gocv.VideoCaptureFPS, v.src.FPS)
	}
}

// whyNotOpen guesses from the time it took, since OpenCV does not say.
func (v *video) whyNotOpen(took time.Duration) error {
	switch v.src.Kind {
	case camera.SourceRTSP, camera.SourceHTTP:
		if took >= v.patience.Open*9/10 {
			return faultf(camera.FaultNoAnswer, "%s accepts connections but sent no stream within %v", v.src, v.patience.Open.Round(time.Millisecond))
		}
		return faultf(camera.FaultNoSource, "%s answers, but with no video that OpenCV can read (wrong path, refused login, or another format)", v.src)
	case camera.SourceV4L2:
		return faultf(camera.FaultNoSource, "%s is there, but cannot be used as a camera (busy, or no capture device)", v.src.Path)
	case camera.SourceGst:
		if !gocv.VideoRegistry.HasBackend(gocv.VideoCaptureGstreamer) {
			return faultf(camera.FaultNoSource, "this OpenCV was built without GStreamer")
		}
		return faultf(camera.FaultNoSource, "GStreamer cannot run the pipeline %s", v.src)
	}
	return faultf(camera.FaultDecode, "%s is no video that OpenCV can read", v.src.Path)
}

func (v *video) read(m *gocv.Mat) (time.Duration, error) {
	start := camera.Monotonic()
	for round := 0; ; round++ {
		// Not Grab and Retrieve: gocv does not say whether Grab failed, and then
		// Retrieve gives the frame before once more.
		ok := v.capture.Read(m) && !m.Empty()
		taken := camera.Monotonic()
		if ok {
			v.frames++
			if v.src.Kind == camera.SourceV4L2 {
				taken = bufferTime(taken, v.capture.Get(gocv.VideoCapturePosMsec))
			}
			return taken, nil
		}
		if v.src.Kind != camera.SourceFile {
			return 0, v.whyNoFrame(taken - start)
		}
		if v.frames == 0 || round > 0 {
			return 0, faultf(camera.FaultDecode, "%s holds no pictures that OpenCV can read", v.src.Path)
		}
		if !v.src.Loop {
			return 0, faultf(camera.FaultEnd, "end of %s", v.src.Path)
		}
		v.capture.Close()
		if err := v.open(); err != nil {
			return 0, err
		}
	}
}

// bufferTime is when the driver filled the buffer (milliseconds, on
// CLOCK_MONOTONIC with all common drivers), where that is plausible; else now.
func bufferTime(now time.Duration, ms float64) time.Duration {
	at := time.Duration(ms * float64(time.Millisecond))
	if age := now - at; ms > 0 && age >= 0 && age < time.Second {
		return at
	}
	return now
}

func (v *video) whyNoFrame(took time.Duration) error {
	if took >= v.patience.Read*9/10 {
		if v.frames == 0 {
			return faultf(camera.FaultNoAnswer, "%s opened, but sent no picture for %v", v.src, took.Round(time.Millisecond))
		}
		return faultf(camera.FaultStalled, "%s sent nothing for %v", v.src, took.Round(time.Millisecond))
	}
	if v.frames == 0 {
		return faultf(camera.FaultDecode, "%s delivers no pictures that OpenCV can read", v.src)
	}
	return faultf(camera.FaultEnd, "%s ended the stream", v.src)
}

func (v *video) skipped() (uint64, error) { return 0, nil }

func (v *video) info() Info { return v.about }

func (v *video) close() error {
	if v.capture == nil {
		return nil
	}
	err := v.capture.Close()
	v.capture = nil
	return err
}

// streamBackend prefers FFmpeg, whose timeouts OpenCV controls. "Any" would try
// one backend after the other, each with its own patience.
func streamBackend(otherwise gocv.VideoCaptureAPI) gocv.VideoCaptureAPI {
	if gocv.VideoRegistry.HasBackend(gocv.VideoCaptureFFmpeg) {
		return gocv.VideoCaptureFFmpeg
	}
	return otherwise
}

func backendName(capture *gocv.VideoCapture) string {
	return gocv.VideoRegistry.GetBackendName(gocv.VideoCaptureAPI(capture.Get(propBackend)))
}

func milliseconds(d time.Duration) gocv.VideoCaptureProperties {
	return gocv.VideoCaptureProperties(max(1, d.Milliseconds()))
}

// sane makes of what a container claims a rate, or 0 for unknown.
func sane(fps float64) float64 {
	if math.IsNaN(fps) || fps < 0.01 || fps > camera.MaxRate {
		return 0
	}
	return fps
}
