package inbox

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/droverhq/drover/ota/bundle"
)

const (
	maxFolders = 64 // that are watched
	maxNames   = 1024
	stickDir   = "drover" // on a stick
	doneDir    = "done"
)

// found is a file in a folder.
type found struct {
	path  string
	stick bool
	size  int64
	mtime time.Time
}

// folders are the inbox, and below the media what may be a stick.
func (in *Inbox) folders() []string {
	out := []string{in.cfg.Dir}
	add := func(dir string) bool {
		if len(out) < maxFolders {
			out = append(out, dir)
		}
		return len(out) < maxFolders
	}
	for _, parent := range in.cfg.Media {
		if info, err := os.Stat(parent); err != nil || !info.IsDir() || !add(parent) {
			continue
		}
		for _, e := range entries(parent) {
			if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			stick := filepath.Join(parent, e.Name())
			if !add(stick) {
				break
			}
			if info, err := os.Lstat(filepath.Join(stick, stickDir)); err == nil && info.IsDir() {
				add(filepath.Join(stick, stickDir))
			}
		}
	}
	return out
}

// list are the bundles that are there, at most MaxFiles.
func (in *Inbox) list() []found {
	var out []found
	for i, dir := range in.folders() {
		for _, e := range entries(dir) {
			if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), bundle.Ext) || !e.Type().IsRegular() {
				continue
			}
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() {
				continue // gone meanwhile
			}
			if len(out) == MaxFiles {
				in.cfg.Logger.Warn("inbox: more bundles than are looked at", "most", MaxFiles)
				return out
			}
			out = append(out, found{filepath.Join(dir, e.Name()), i > 0, info.Size(), info.ModTime()})
		}
	}
	return out
}

// entries are the first names of a folder; none where it cannot be read: a
// stick may be pulled at any moment.
func entries(dir string) []fs.DirEntry {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	list, _ := d.ReadDir(maxNames) // what came counts
	return list
}
