// Package opencv opens a camera.Source with OpenCV and reads frames from it,
// and makes preview JPEGs of frames.
//
// Native code does the work, and native code can hang: a dead RTSP server keeps
// OpenCV waiting in spite of its timeouts, a driver may never return. So every
// call here may block for ever and none can be cancelled. The package
// therefore starts no goroutines and keeps no watch; its one user, the child
// program drover-camera, watches from outside and ends the process.
//
// The package needs cgo and the build tags gocv_specific_modules, gocv_videoio
// and gocv_imgcodecs. Built without them it is a stub whose Open returns
// ErrNotBuilt, so that the rest of the module builds everywhere.
package opencv

import (
	"errors"
	"time"
)

// ErrNotBuilt is returned (wrapped) by everything in a program that was built
// without OpenCV.
var ErrNotBuilt = errors.New("opencv: this program was built without OpenCV; build it with -tags gocv_specific_modules,gocv_videoio,gocv_imgcodecs")

// Patience bounds how long OpenCV may wait for a network source, as far as
// OpenCV obeys.
type Patience struct {
	Open time.Duration // until the stream is open
	Read time.Duration // for one frame
}

// Info says what an open source is.
type Info struct {
	Backend string  // which part of OpenCV reads it: FFMPEG, V4L2, GSTREAMER, folder
	FPS     float64 // frames a second that the source promises; 0: unknown
}
