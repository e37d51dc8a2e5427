package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/camera/opencv"
)

// capture opens the source and moves frames into the ring until the source
// fails or ends.
func (c *child) capture(ctx context.Context) outcome {
	err := c.captureFrames(ctx)
	if err == nil || ctx.Err() != nil || ended(err) {
		return outcome{exitOK, nil}
	}
	kind := camera.FaultInternal
	var fault *camera.Fault
	if errors.As(err, &fault) {
		kind, err = fault.Kind, fault.Err
	}
	c.fault(kind, err)
	if kind == camera.FaultEnd && !c.source.Live() {
		return outcome{exitOK, nil}
	}
	return outcome{exitFault, fmt.Errorf("%s: %w", kind, err)}
}

func (c *child) captureFrames(ctx context.Context) error {
	// Until the first frame is there the source counts as being opened.
	c.watch.begin(opening)
	defer c.watch.end()
	src, err := opencv.Open(ctx, c.source, opencv.Patience{Open: c.config.OpenTimeout, Read: c.config.StuckAfter})
	if err != nil {
		return err
	}
	defer src.Close()
	info := src.Info()
	pace := newPace(c.source, &info)

	var f camera.Frame
	for f.Seq = 1; ctx.Err() == nil; f.Seq++ {
		if err := src.Read(&f); err != nil {
			return err
		}
		c.noteSkipped(src)
		if f.Seq == 1 {
			err := c.conn.SendPayload(ipc.KindOpened, &ipc.Opened{Width: f.Width, Height: f.Height, FPS: info.FPS, Backend: info.Backend})
			if err != nil {
				return err
			}
		}
		if pace != nil {
			c.watch.end()
			if !pace.wait(ctx) {
				return nil
			}
			f.CapturedAt = camera.Monotonic()
		}
		c.watch.begin(reading)
		if err := c.publish(&f); err != nil {
			return err
		}
	}
	return nil
}

func (c *child) publish(f *camera.Frame) error {
	err := c.writer.Write(f)
	if errors.Is(err, camera.ErrTooLarge) {
		return &camera.Fault{Kind: camera.FaultTooLarge, Err: err}
	}
	if err != nil {
		return err
	}
	c.counts.size.Store(uint64(f.Width) | uint64(f.Height)<<32)
	c.counts.lastNs.Store(int64(f.CapturedAt))
	c.counts.lastSeq.Store(f.Seq)
	c.counts.frames.Add(1)
	c.readers.signal()
	return nil
}

// noteSkipped logs the first picture of a folder that cannot be read and
// counts the others.
func (c *child) noteSkipped(src *opencv.Capture) {
	skipped, err := src.Skipped()
	if before := c.counts.dropped.Swap(skipped); before == 0 && skipped > 0 {
		c.log.Warn("a picture was left out; others will only be counted", "error", err)
	}
}

// pace is the schedule of a replay: frame n is due at start + n / rate, so that
// a late frame does not delay those behind it.
type pace struct {
	rate  float64
	start time.Duration
	n     float64
}

// newPace is nil for a live source, which sets its own pace. It puts the rate
// of a replay into info.
func newPace(src camera.Source, info *opencv.Info) *pace {
	if src.Live() {
		return nil
	}
	switch {
	case src.Rate > 0:
		info.FPS = src.Rate
	case info.FPS == 0:
		info.FPS = camera.DefaultRate
	}
	return &pace{rate: info.FPS}
}

// due says when the next frame is due, seen from now, and counts it. One that
// is late by a second or more starts a new schedule, instead of a burst.
func (p *pace) due(now time.Duration) time.Duration {
	due := p.start + time.Duration(p.n/p.rate*float64(time.Second))
	if p.n == 0 || now-due >= time.Second {
		p.start, p.n, due = now, 0, now
	}
	p.n++
	return due
}

// wait waits until the next frame is due; false means that ctx is over.
func (p *pace) wait(ctx context.Context) bool {
	now := camera.Monotonic()
	left := p.due(now) - now
	if left <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(left):
		return true
	}
}

// clip keeps a message within what a Fault may carry.
func clip(s string) string {
	const most = 1000
	s = strings.ToValidUTF8(s, "?")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
