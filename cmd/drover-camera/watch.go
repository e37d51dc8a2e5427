package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
)

// phase is what native code is busy with.
type phase int64

const (
	idle phase = iota
	opening
	reading
)

// graceOpen is what OpenCV gets on top of its own timeout before it counts as
// hung.
const graceOpen = time.Second

// watch remembers since when native code has been busy, for a goroutine that
// is not. The time and the phase are one word, so that they belong together.
type watch struct {
	busy atomic.Int64 // CLOCK_MONOTONIC in ns, the phase in the two lowest bits
}

func (w *watch) begin(p phase) { w.busy.Store(int64(camera.Monotonic())&^3 | int64(p)) }

func (w *watch) end() { w.busy.Store(int64(idle)) }

func (w *watch) look(now time.Duration) (phase, time.Duration) {
	busy := w.busy.Load()
	return phase(busy & 3), now - time.Duration(busy&^3)
}

// verdict is what the watchdog thinks.
type verdict int

const (
	fine    verdict = iota
	slow            // report it, and hope
	noReply         // give up while opening
	stuck           // give up while reading
)

// judge is the watchdog's decision.
func judge(p phase, since time.Duration, config camera.Config) verdict {
	switch {
	case p == opening && since >= config.OpenTimeout+graceOpen:
		return noReply
	case p == reading && since >= config.StuckAfter:
		return stuck
	case p == reading && since >= config.StallAfter:
		return slow
	}
	return fine
}

// report watches over native code and sends Stats each second.
func (c *child) report(ctx context.Context) outcome {
	look := min(c.config.StallAfter/4, 250*time.Millisecond)
	ticker := time.NewTicker(look)
	defer ticker.Stop()
	statsAt, statsFrames := camera.Monotonic(), uint64(0)
	var toldAt int64 // the busy word of the read already reported
	for {
		select {
		case <-ctx.Done():
			return outcome{exitOK, nil}
		case <-ticker.C:
		}
		now := camera.Monotonic()
		busy := c.watch.busy.Load()
		p, since := c.watch.look(now)
		switch judge(p, since, c.config) {
		case noReply:
			err := fmt.Errorf("%s does not answer within %v", c.source, c.config.OpenTimeout)
			c.fault(camera.FaultNoAnswer, err)
			return outcome{exitStuck, err}
		case stuck:
			err := fmt.Errorf("%s: no frame for %v, giving up", c.source, since.Round(time.Millisecond))
			c.fault(camera.FaultStalled, err)
			return outcome{exitStuck, err}
		case slow:
			if busy != toldAt {
				toldAt = busy
				c.fault(camera.FaultStalled, fmt.Errorf("%s: no frame for %v", c.source, since.Round(time.Millisecond)))
			}
		}
		if elapsed := now - statsAt; elapsed >= time.Second-look/2 {
			frames := c.counts.frames.Load()
			fps := float64(frames-statsFrames) / elapsed.Seconds()
			statsAt, statsFrames = now, frames
			if err := c.conn.SendPayload(ipc.KindStats, c.stats(frames, fps)); err != nil {
				code, err := parentGone(err)
				return outcome{code, err}
			}
		}
	}
}

func (c *child) stats(frames uint64, fps float64) *ipc.Stats {
	size := c.counts.size.Load()
	return &ipc.Stats{
		Frames:  frames,
		Dropped: c.counts.dropped.Load(),
		FPS:     fps,
		Width:   int(uint32(size)),
		Height:  int(size >> 32),
		LastSeq: c.counts.lastSeq.Load(),
		LastNs:  c.counts.lastNs.Load(),
	}
}
