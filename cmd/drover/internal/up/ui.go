package up

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// ui shows words, progress bars and one live line. On a terminal the bars move;
// elsewhere they become a line every tenth of the way.
type ui struct {
	out io.Writer
	tty bool
	mpb *mpb.Progress

	mu     sync.Mutex
	status string // the live line
	closed bool
}

func newUI(out io.Writer, tty bool) *ui {
	u := &ui{out: out, tty: tty}
	if tty {
		u.mpb = mpb.New(mpb.WithOutput(out), mpb.WithRefreshRate(200*time.Millisecond))
	}
	return u
}

// say writes one line above the bars.
func (u *ui) say(format string, args ...any) {
	u.mu.Lock()
	direct := !u.tty || u.closed
	u.mu.Unlock()
	line := fmt.Sprintf(format, args...) + "\n"
	if direct {
		io.WriteString(u.out, line)
		return
	}
	_, _ = u.mpb.Write([]byte(line))
}

// step announces a part of the story.
func (u *ui) step(n int, format string, args ...any) {
	u.say("\n[%d/%d] %s", n, steps, fmt.Sprintf(format, args...))
}

// bar is one progress bar.
type bar struct {
	ui    *ui
	name  string
	began time.Time
	bar   *mpb.Bar
	mu    sync.Mutex
	note  string
	tenth int
	ended bool
}

// progress begins a bar.
func (u *ui) progress(name string) *bar {
	b := &bar{ui: u, name: name, began: time.Now(), tenth: -1}
	if u.tty {
		b.bar = u.mpb.AddBar(0, mpb.BarPriority(0), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name("  "+name, decor.WC{W: 14, C: decor.DindentRight})),
			mpb.AppendDecorators(decor.Percentage(decor.WC{W: 5}), decor.Any(func(decor.Statistics) string {
				b.mu.Lock()
				defer b.mu.Unlock()
				return "  " + b.note
			})))
	}
	return b
}

// set moves the bar; note stands behind it.
func (b *bar) set(done, total int, note string) {
	b.mu.Lock()
	b.note = note
	tenth := 10 * done / max(1, total)
	fresh := tenth > b.tenth
	b.tenth = max(b.tenth, tenth)
	b.mu.Unlock()
	if b.bar != nil {
		b.bar.SetTotal(int64(total), false)
		b.bar.SetCurrent(int64(done))
		return
	}
	if fresh && tenth < 10 { // the last one is end's
		b.ui.say("  %-12s %3d %%  %s", b.name, 10*tenth, note)
	}
}

// end takes the bar away and leaves a line in its place.
func (b *bar) end() {
	b.mu.Lock()
	ended, note := b.ended, b.note
	b.ended = true
	b.mu.Unlock()
	if ended {
		return
	}
	if b.bar != nil {
		b.bar.Abort(true)
	}
	b.ui.say("  %-12s %s, %.1f s", b.name, note, time.Since(b.began).Seconds())
}

const liveEvery = 500 * time.Millisecond

// live keeps one line that says what the device does, until stop is called. It
// also is the witness that the status page never is away.
func (u *ui) live(ctx context.Context, d *device) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	var line *mpb.Bar
	if u.tty {
		line = u.mpb.New(0, mpb.NopStyle(), mpb.BarPriority(1000), mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
			u.mu.Lock()
			defer u.mu.Unlock()
			return u.status
		})))
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(liveEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			text := u.describe(ctx, d)
			u.mu.Lock()
			u.status = text
			u.mu.Unlock()
		}
	}()
	return sync.OnceFunc(func() {
		cancel()
		<-done
		if line != nil {
			line.Abort(true)
		}
	})
}

func (u *ui) describe(ctx context.Context, d *device) string {
	s, err := d.snapshot(ctx)
	if err != nil {
		return "live  status page does not answer"
	}
	parts := []string{"live"}
	for _, c := range s.Cameras {
		seen := "no answer yet"
		if c.HasResult && len(c.Top) > 0 {
			seen = fmt.Sprintf("%s %.0f %%", c.Top[0].Label, 100*c.Top[0].P)
		}
		parts = append(parts, fmt.Sprintf("%s sees %-16s %4.1f fps", c.Name, seen, c.FPS))
	}
	release := "no release"
	if s.Model.Release != "" {
		release = strings.TrimPrefix(s.Model.Release, "release/")
	}
	parts = append(parts, release, string(s.State.Update.State))
	if s.State.Update.Total > 0 {
		parts = append(parts, fmt.Sprintf("%d/%d KiB", s.State.Update.Done>>10, s.State.Update.Total>>10))
	}
	return strings.Join(parts, " · ")
}

// close ends the drawing; say goes on to work.
func (u *ui) close() {
	u.mu.Lock()
	closed := u.closed
	u.closed = true
	u.mu.Unlock()
	if !closed && u.mpb != nil {
		u.mpb.Shutdown()
	}
}
