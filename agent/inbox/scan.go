package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/bundle"
)

// phase of a file.
type phase int

const (
	settling phase = iota // it changed a moment ago
	broken                // it is not whole, and may become so
	taken                 // it was offered, its update is under way
	closed                // nothing is left to do, unless it changes
)

// pendingPoll is how often a file whose update is under way is looked at.
const pendingPoll = time.Second

// file is a bundle and what is known of it.
type file struct {
	found
	changed time.Time // when a change was last seen
	phase   phase
	why     error // broken: what is wrong
	bundle  *bundle.Bundle
	target  Target
}

// scan looks at all files once and says when to look again.
func (in *Inbox) scan(ctx context.Context, now time.Time) time.Time {
	in.compare(in.list(), now)
	next := now.Add(in.cfg.Poll)
	until := func(t time.Time) {
		if t.Before(next) {
			next = t
		}
	}
	var whole []*file
	for _, f := range in.files {
		switch {
		case f.phase == settling && now.Sub(f.changed) < in.cfg.Quiet:
			until(f.changed.Add(in.cfg.Quiet))
		case f.phase == settling:
			if in.examine(ctx, f) {
				whole = append(whole, f)
			} else {
				until(f.changed.Add(in.cfg.Patience))
			}
		case f.phase == broken && now.Sub(f.changed) < in.cfg.Patience:
			until(f.changed.Add(in.cfg.Patience))
		case f.phase == broken:
			if in.examine(ctx, f) {
				whole = append(whole, f)
			} else if ctx.Err() == nil {
				in.refuse(f, f.why)
			}
		}
	}
	// In the order in which they were made, so that of two the newer one counts.
	slices.SortFunc(whole, func(a, b *file) int {
		return cmp.Or(cmp.Compare(a.bundle.Head.Created, b.bundle.Head.Created), strings.Compare(a.path, b.path))
	})
	for _, f := range whole {
		in.judge(f)
	}
	for _, f := range in.files {
		if f.phase == taken {
			in.settle(f)
		}
		if f.phase == taken {
			until(now.Add(pendingPoll))
		}
	}
	return next
}

// compare notes what came, changed and went.
func (in *Inbox) compare(list []found, now time.Time) {
	here := map[string]bool{}
	for _, is := range list {
		here[is.path] = true
		f := in.files[is.path]
		if f != nil && f.size == is.size && f.mtime.Equal(is.mtime) {
			continue
		}
		if f != nil && f.phase == taken {
			in.source.remove(is.path) // its offsets count no more
		}
		in.files[is.path] = &file{found: is, changed: now}
	}
	for path, f := range in.files {
		if here[path] {
			continue
		}
		in.source.remove(path)
		delete(in.files, path)
		if f.phase == taken {
			in.told(f, wire.ReasonNone, "is gone before its release was active; what was fetched stays, other sources are asked for the rest")
		}
	}
}

// examine says whether a file is whole.
func (in *Inbox) examine(ctx context.Context, f *file) bool {
	f.phase = broken
	f.bundle, f.why = readFile(ctx, f.path, true)
	return f.why == nil
}

// readFile opens and reads a bundle; whole reads its blobs too.
func readFile(ctx context.Context, path string, whole bool) (*bundle.Bundle, error) {
	r, size, err := open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := bundle.Read(r, size)
	if err == nil && whole {
		err = b.Check(ctx, r)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// open opens a regular file and nothing else: no link, and no pipe, whose
// opening would wait.
func open(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, 0, fmt.Errorf("inbox: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("inbox: %s is %v", path, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// judge asks the device's verifier about a whole file and offers it.
func (in *Inbox) judge(f *file) {
	r, _, err := open(f.path)
	if err != nil {
		in.cfg.Logger.Debug("inbox: gone", "file", f.path, "error", err)
		return // the next look will see
	}
	defer r.Close()
	f.target, err = in.cfg.Device.Judge(f.bundle, r)
	if err != nil {
		// Metadata that is good is taken even where the rest is of no use here.
		if r := reasonOf(err); r == wire.ReasonPlan || r == wire.ReasonFetch {
			in.cfg.Device.Offer(f.bundle)
		}
		in.refuse(f, err)
		return
	}
	in.source.add(f.path, f.bundle)
	f.phase = taken
	if s, _ := in.cfg.Device.Standing(f.target); s != Done {
		in.told(f, wire.ReasonNone, "is whole and well signed: it brings %s", f.target.Release)
	}
	in.cfg.Device.Offer(f.bundle)
}

// settle looks what became of a file that was taken.
func (in *Inbox) settle(f *file) {
	switch s, err := in.cfg.Device.Standing(f.target); s {
	case Done:
		in.finish(f)
	case Ended:
		in.refuse(f, err)
	case Pending:
		in.cfg.Device.Offer(f.bundle) // an offer may have been lost among others
	}
}

// reasonOf is the reason under which a refusal is counted.
func reasonOf(err error) wire.Reason {
	var r *ota.Refusal
	switch {
	case errors.As(err, &r):
		return r.Reason
	case errors.Is(err, bundle.ErrDigest):
		return wire.ReasonDigest
	case errors.Is(err, bundle.ErrFormat), errors.Is(err, bundle.ErrIncomplete):
		return wire.ReasonMalformed
	}
	return wire.ReasonInternal
}
