// Package prep turns a camera frame into the bytes of a classifier's input
// tensor, exactly as infer.Preprocess says:
//
//  1. fit: the rectangle of the frame that counts. Stretch and letterbox take
//     the whole frame; crop takes the largest centred rectangle of the input's
//     aspect ratio.
//  2. crop fraction: that rectangle's sides times the fraction, rounded to
//     whole pixels, same centre.
//  3. resize to the input's size, or for letterbox to the largest size of the
//     rectangle's aspect ratio inside it, centred, with bars of Pad. Bilinear is
//     OpenCV's INTER_LINEAR, area INTER_AREA (INTER_LINEAR unless both sides
//     shrink), nearest INTER_NEAREST. Antialias is a triangle filter whose half
//     width is max(1, input ÷ output) input pixels along each side, computed
//     here in integers, the same on every machine. A rectangle that has the
//     size already is not resampled.
//  4. colour: channels are reordered or repeated, or reduced to OpenCV's luma.
//  5. (pixel − mean) ÷ std and quantization, through a table of 256 entries a
//     channel, into the tensor's layout.
//
// OpenCV is used through gocv core and imgproc.
package prep

import "errors"

// ErrUnavailable is returned by New in a program built without cgo.
var ErrUnavailable = errors.New("prep: this program was built without cgo, so without OpenCV; use drover-infer")

// ErrSpec is wrapped by errors of New about what no plan can be made for.
var ErrSpec = errors.New("prep: spec")
