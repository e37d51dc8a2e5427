package inbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/bundle"
)

const (
	refusedExt = bundle.Ext + ".refused"
	reasonExt  = bundle.Ext + ".reason"
)

// finish ends a file whose release is active.
func (in *Inbox) finish(f *file) {
	in.end(f)
	in.told(f, wire.ReasonNone, "is done with: %s is active", f.target.Release)
	name := filepath.Base(f.path)
	in.tidy(f, func(root *os.Root) error {
		if err := root.MkdirAll(doneDir, 0o700); err != nil {
			return err
		}
		return errors.Join(move(root, name, filepath.Join(doneDir, name)), prune(root, doneDir, bundle.Ext, in.cfg.Keep))
	})
}

// refuse ends a file that is of no use.
func (in *Inbox) refuse(f *file, why error) {
	in.end(f)
	reason := reasonOf(why)
	in.told(f, reason, "is refused: %v", why)
	name := filepath.Base(f.path)
	base := strings.TrimSuffix(name, bundle.Ext)
	in.tidy(f, func(root *os.Root) error {
		if err := move(root, name, base+refusedExt); err != nil {
			return err
		}
		text := fmt.Sprintf("%s\n%s: %v\n", time.Now().UTC().Format(time.RFC3339), reason, why)
		return errors.Join(prune(root, ".", refusedExt, in.cfg.Keep), write(root, base+reasonExt, text))
	})
}

// end makes a file none of the inbox's any more.
func (in *Inbox) end(f *file) {
	in.source.remove(f.path)
	f.phase, f.bundle = closed, nil
}

// tidy sets a file aside, within the inbox: who may write there may have put
// links into it. A file that stays where it is is not looked at again until it
// changes or the daemon restarts.
func (in *Inbox) tidy(f *file, do func(*os.Root) error) {
	if f.stick {
		return
	}
	root, err := os.OpenRoot(in.cfg.Dir)
	if err == nil {
		err = errors.Join(do(root), root.Close())
	}
	if err != nil {
		in.cfg.Logger.Warn("inbox: a file is not set aside in full", "file", f.path, "error", err)
	}
}

// move renames a file and notes when.
func move(root *os.Root, from, to string) error {
	if err := root.Rename(from, to); err != nil {
		return err
	}
	now := time.Now()
	return root.Chtimes(to, now, now)
}

// write makes a text anew; on a full disk nothing of it stays.
func write(root *os.Root, name, text string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, root.Remove(name))
	}
	return nil
}

// prune removes all but the newest files of a folder that end in ext.
func prune(root *os.Root, dir, ext string, keep int) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	list, err := d.ReadDir(maxNames)
	if err != nil {
		return err
	}
	type old struct {
		name string
		at   time.Time
	}
	var all []old
	for _, e := range list {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ext) && info.Mode().IsRegular() {
			all = append(all, old{filepath.Join(dir, e.Name()), info.ModTime()})
		}
	}
	slices.SortFunc(all, func(a, b old) int { return b.at.Compare(a.at) })
	var failed error
	for _, o := range all[min(keep, len(all)):] {
		failed = errors.Join(failed, root.Remove(o.name))
		if reason, ok := strings.CutSuffix(o.name, refusedExt); ok {
			_ = root.Remove(reason + reasonExt) // it may be missing
		}
	}
	return failed
}
