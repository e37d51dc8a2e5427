package inbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// On a full disk a file is still refused and set aside, told by an event, and no
// half text lies beside it; one that is whole is taken where it lies.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m,nr_inodes=64"); err != nil {
		t.Skipf("no small disk can be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	r := newRig(t, func(c *Config) { c.Dir = dir })
	r.dir = dir
	raw, ref := pack(t, 1, 1)
	r.put("good.drover", raw)
	r.put("bad.drover", raw[:900])
	var err error
	for chunk := make([]byte, 4096); err == nil; { // to the last byte
		var f *os.File
		if f, err = os.OpenFile(filepath.Join(dir, "ballast"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
			_, err = f.Write(chunk)
			f.Close()
		}
	}
	r.look(time.Second)
	r.look(2 * time.Minute)
	if said := r.said(); !strings.Contains(said, `bundle "bad.drover" is refused`) || !strings.Contains(said, `bundle "good.drover" is whole`) {
		t.Errorf("said %q", said)
	}
	if !r.has("bad.drover.refused") || r.has("bad.drover.reason") {
		t.Error("not set aside, or with half a reason")
	}
	if read(t, r, ref, 0, 1, 2, 3) != 4 {
		t.Error("the good one is no source")
	}
}
