package main

import (
	"context"
	"errors"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/camera/opencv"
)

// previewer makes JPEGs of the newest frame when asked. It reads the ring as
// any reader does, so that a slow encoder never delays a frame.
type previewer struct {
	conn     *ipc.Conn
	ring     *camera.RingReader
	requests chan ipc.PreviewRequest
}

func newPreviewer(conn *ipc.Conn, ring *camera.RingReader) *previewer {
	return &previewer{conn: conn, ring: ring, requests: make(chan ipc.PreviewRequest, 4)}
}

// ask queues a request. When too many wait, it is answered without a picture.
func (p *previewer) ask(r ipc.PreviewRequest) error {
	select {
	case p.requests <- r:
		return nil
	default:
		return p.miss(r, "too many previews asked for at once")
	}
}

func (p *previewer) run(ctx context.Context) outcome {
	encoder := opencv.NewEncoder()
	defer encoder.Close()
	var frame camera.Frame
	for {
		select {
		case <-ctx.Done():
			return outcome{exitOK, nil}
		case r := <-p.requests:
			if err := p.answer(r, encoder, &frame); err != nil {
				code, err := parentGone(err)
				return outcome{code, err}
			}
		}
	}
}

// answer sends exactly one reply; its error means that sending failed.
func (p *previewer) answer(r ipc.PreviewRequest, encoder *opencv.Encoder, frame *camera.Frame) error {
	ok, err := p.ring.Next(0, frame)
	if err != nil {
		return p.miss(r, err.Error())
	}
	if !ok {
		return p.miss(r, "no frame yet")
	}
	jpeg, width, height, err := encoder.JPEG(frame, r.Width, r.Quality)
	if err == nil && len(jpeg) > ipc.MaxPreviewBytes {
		err = errors.New("the JPEG is too large; ask for less width or quality")
	}
	if err != nil {
		return p.miss(r, err.Error())
	}
	file, err := ipc.SealedMemfd("preview", jpeg)
	if err != nil {
		return p.miss(r, err.Error())
	}
	defer file.Close()
	return p.conn.SendPayload(ipc.KindPreviewReply, &ipc.PreviewReply{
		ID: r.ID, Width: width, Height: height, Seq: frame.Seq, CapturedNs: int64(frame.CapturedAt),
	}, int(file.Fd()))
}

func (p *previewer) miss(r ipc.PreviewRequest, why string) error {
	return p.conn.SendPayload(ipc.KindPreviewReply, &ipc.PreviewReply{ID: r.ID, Missing: clip(why)})
}

func (p *previewer) close() error { return p.ring.Close() }
