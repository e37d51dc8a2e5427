package ipc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"

	"github.com/droverhq/drover/camera"
)

// What a parent and drover-camera say to each other:
//
//	child                             parent
//	Hello{program, opencv}        →
//	Sealed{seccomp, gaps}         →             the child is locked up; only now:
//	                              ←  OpenSource{config} + ring memfd
//	Mapped{}                      →             parent: camera.SealRing, then readers
//	Opened{size, fps, backend}    →             or Fault, then the child exits
//	                              ←  AddReader{id} + eventfd … RemoveReader{id}
//	                              ←  PreviewRequest{id, width, quality}
//	PreviewReply{id, …} + memfd   →             a sealed JPEG; one reply per request
//	Stats{…} each second          →
//	Fault{kind, message}          →             stalled: it goes on; else the child exits
//	                              ←  Stop, or the socket closes: the child exits 0
//
// AddReader may come any time after OpenSource was sent. A child holds one
// source and one ring in its life. Payloads are JSON, decoded strictly; Stop
// and Mapped are empty objects.

// Message kinds of drover-camera. Odd ones go to the child, even ones come
// from it.
const (
	KindOpenSource     byte = 1
	KindHello          byte = 2
	KindAddReader      byte = 3
	KindSealed         byte = 4
	KindRemoveReader   byte = 5
	KindMapped         byte = 6
	KindPreviewRequest byte = 7
	KindOpened         byte = 8
	KindStop           byte = 9
	KindPreviewReply   byte = 10
	KindStats          byte = 12
	KindFault          byte = 14
)

// Limits of the payloads.
const (
	MaxReaders      = 16
	MaxPreviewWidth = 1920            // pixels
	MaxPreviewBytes = 2 * 1024 * 1024 // of JPEG
	maxText         = 4096            // bytes of one string
	maxGaps         = 64
)

// Hello is the child's first message.
type Hello struct {
	Program string `json:"program"` // version of drover-camera
	OpenCV  string `json:"opencv"`
}

// Sealed says what holds the child from now on.
type Sealed struct {
	Seccomp bool     `json:"seccomp"`
	Gaps    []string `json:"gaps,omitempty"` // what the kernel could not enforce, in words
}

// OpenSource comes with the memfd of the ring, not yet sealed.
type OpenSource struct {
	Config camera.Config `json:"config"`
}

// Mapped says that the child has mapped the ring for writing.
type Mapped struct{}

// Stop asks the child to end.
type Stop struct{}

// Opened says what the source really delivers.
type Opened struct {
	Width   int     `json:"width"`  // pixels, of the first frame
	Height  int     `json:"height"` // pixels
	FPS     float64 `json:"fps"`    // of the replay, or as the source says; 0: unknown
	Backend string  `json:"backend"`
}

// AddReader comes with the eventfd that is to be signalled for each new frame.
type AddReader struct {
	ID uint32 `json:"id"` // chosen by the parent
}

// RemoveReader makes the child forget a reader and close its eventfd.
type RemoveReader struct {
	ID uint32 `json:"id"`
}

// PreviewRequest asks for the newest frame as JPEG.
type PreviewRequest struct {
	ID      uint64 `json:"id"`      // comes back in the reply
	Width   int    `json:"width"`   // pixels, 16…MaxPreviewWidth; never enlarged
	Quality int    `json:"quality"` // 1…100
}

// PreviewReply comes with the sealed memfd of a JPEG of at most
// MaxPreviewBytes, or without one when Missing says why there is none.
type PreviewReply struct {
	ID         uint64 `json:"id"`
	Width      int    `json:"width,omitempty"`  // pixels of the JPEG
	Height     int    `json:"height,omitempty"` // pixels of the JPEG
	Seq        uint64 `json:"seq,omitempty"`    // of the frame
	CapturedNs int64  `json:"captured_ns,omitempty"`
	Missing    string `json:"missing,omitempty"`
}

// Stats counts since the source was opened.
type Stats struct {
	Frames  uint64  `json:"frames"`   // written to the ring
	Dropped uint64  `json:"dropped"`  // of a replay: frames left out to keep the rate; else bad ones
	FPS     float64 `json:"fps"`      // over the last interval
	Width   int     `json:"width"`    // of the newest frame; 0: none yet
	Height  int     `json:"height"`   // of the newest frame
	LastSeq uint64  `json:"last_seq"` // of the newest frame; 0: none yet
	LastNs  int64   `json:"last_ns"`  // CLOCK_MONOTONIC of the newest frame
}

// Fault says what is wrong with the source.
type Fault struct {
	Kind    camera.FaultKind `json:"kind"`
	Message string           `json:"message"`
}

// payload is what DecodePayload can decode: Check judges the values.
type payload interface{ Check() error }

// DecodePayload reads a control payload strictly: no unknown or trailing
// bytes, all values in range. The error wraps ErrProtocol.
func DecodePayload(b []byte, out payload) error {
	if len(b) > MaxMessage {
		return fmt.Errorf("%w: payload of %d bytes", ErrProtocol, len(b))
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		return fmt.Errorf("%w: %T: %v", ErrProtocol, out, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: %T: bytes behind the message", ErrProtocol, out)
	}
	if err := out.Check(); err != nil {
		return fmt.Errorf("%w: %T: %v", ErrProtocol, out, err)
	}
	return nil
}

// SendPayload sends v as JSON. It refuses what the other side would refuse.
func (c *Conn) SendPayload(kind byte, v payload, fds ...int) error {
	if err := v.Check(); err != nil {
		return fmt.Errorf("ipc: send %T: %w", v, err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("ipc: send %T: %w", v, err)
	}
	return c.Send(kind, b, fds...)
}

// Check implements payload.
func (h *Hello) Check() error { return texts(h.Program, h.OpenCV) }

// Check implements payload.
func (s *Sealed) Check() error {
	if len(s.Gaps) > maxGaps {
		return fmt.Errorf("%d gaps, allowed %d", len(s.Gaps), maxGaps)
	}
	return texts(s.Gaps...)
}

// Check implements payload.
func (o *OpenSource) Check() error {
	_, err := o.Config.Validate()
	return err
}

// Check implements payload.
func (*Mapped) Check() error { return nil }

// Check implements payload.
func (*Stop) Check() error { return nil }

// Check implements payload.
func (o *Opened) Check() error {
	if err := sides(o.Width, o.Height, 1); err != nil {
		return err
	}
	if err := rate(o.FPS); err != nil {
		return err
	}
	return texts(o.Backend)
}

// Check implements payload.
func (*AddReader) Check() error { return nil }

// Check implements payload.
func (*RemoveReader) Check() error { return nil }

// Check implements payload.
func (p *PreviewRequest) Check() error {
	if p.Width < 16 || p.Width > MaxPreviewWidth {
		return fmt.Errorf("preview %d pixels wide, allowed 16…%d", p.Width, MaxPreviewWidth)
	}
	if p.Quality < 1 || p.Quality > 100 {
		return fmt.Errorf("preview quality %d, allowed 1…100", p.Quality)
	}
	return nil
}

// Check implements payload.
func (p *PreviewReply) Check() error {
	if p.CapturedNs < 0 {
		return fmt.Errorf("captured at %v", time.Duration(p.CapturedNs))
	}
	if p.Missing != "" {
		return texts(p.Missing)
	}
	return sides(p.Width, p.Height, 1)
}

// Check implements payload.
func (s *Stats) Check() error {
	if s.LastNs < 0 {
		return fmt.Errorf("last frame at %v", time.Duration(s.LastNs))
	}
	if err := sides(s.Width, s.Height, 0); err != nil {
		return err
	}
	return rate(s.FPS)
}

// Check implements payload.
func (f *Fault) Check() error {
	if !f.Kind.Known() {
		return fmt.Errorf("fault of unknown kind %.40q", f.Kind)
	}
	return texts(f.Message)
}

func texts(all ...string) error {
	for _, s := range all {
		if len(s) > maxText || !utf8.ValidString(s) {
			return fmt.Errorf("text of %d bytes, allowed %d of UTF-8", len(s), maxText)
		}
	}
	return nil
}

func sides(width, height, least int) error {
	if width < least || height < least || width > camera.MaxSide || height > camera.MaxSide {
		return fmt.Errorf("%d×%d pixels, allowed %d…%d a side", width, height, least, camera.MaxSide)
	}
	return nil
}

// rate allows more than camera.MaxRate: a short interval may measure more than
// was asked for.
func rate(fps float64) error {
	if math.IsNaN(fps) || fps < 0 || fps > 1e6 {
		return fmt.Errorf("%v frames a second", fps)
	}
	return nil
}
