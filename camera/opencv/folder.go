//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
)

// Limits of a folder.
const (
	maxPictures     = 1_000_000
	maxPictureBytes = 64 * 1024 * 1024
)

// folder replays all pictures below a folder, sorted by path.
type folder struct {
	src    camera.Source
	paths  []string
	next   int
	good   uint64 // pictures read in this round
	bad    uint64 // pictures that could not be read, ever
	badErr error
}

func openFolder(src camera.Source) (*folder, error) {
	f := &folder{src: src}
	st, err := os.Stat(src.Path)
	if err != nil {
		return nil, faultf(camera.FaultNoSource, "%s: %w", src.Path, plain(err))
	}
	if !st.IsDir() {
		return nil, faultf(camera.FaultNoSource, "%s is no folder; for a video file use file://%s", src.Path, src.Path)
	}
	err = filepath.WalkDir(src.Path, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || !isPicture(path) {
			return nil
		}
		if len(f.paths) == maxPictures {
			return fmt.Errorf("more than %d pictures", maxPictures)
		}
		f.paths = append(f.paths, path)
		return nil
	})
	if err != nil {
		return nil, faultf(camera.FaultNoSource, "%s: %w", src.Path, err)
	}
	if len(f.paths) == 0 {
		return nil, faultf(camera.FaultNoSource, "%s holds no pictures (png, jpg, bmp)", src.Path)
	}
	slices.Sort(f.paths)
	return f, nil
}

func isPicture(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".png", ".jpg", ".jpeg", ".bmp":
		return true
	}
	return false
}

// read skips pictures that cannot be read, but a round with none that can is a
// fault: it would never end.
func (f *folder) read(m *gocv.Mat) (time.Duration, error) {
	for {
		if f.next == len(f.paths) {
			if f.good == 0 {
				return 0, faultf(camera.FaultDecode, "no picture below %s can be read, the last one: %w", f.src.Path, f.badErr)
			}
			if !f.src.Loop {
				return 0, faultf(camera.FaultEnd, "end of %s after %d pictures", f.src.Path, len(f.paths))
			}
			f.next, f.good = 0, 0
		}
		path := f.paths[f.next]
		f.next++
		taken := camera.Monotonic()
		err := f.decode(path, m)
		if err == nil {
			f.good++
			return taken, nil
		}
		f.bad++
		f.badErr = fmt.Errorf("%s: %w", path, err)
	}
}

func (f *folder) decode(path string, m *gocv.Mat) error {
	data, err := readPicture(path)
	if err != nil {
		return err
	}
	flags := gocv.IMReadColor
	if f.src.Gray {
		flags = gocv.IMReadAnyColor
	}
	// Not IMDecodeIntoMat: when it fails it leaves the picture before in m and
	// reports success.
	got, why := gocv.IMDecode(data, flags)
	switch {
	case got.Empty():
		err = errors.Join(errors.New("no picture that OpenCV can read"), why)
	case got.Cols() > camera.MaxSide || got.Rows() > camera.MaxSide:
		err = fmt.Errorf("%d×%d pixels, allowed %d a side", got.Cols(), got.Rows(), camera.MaxSide)
	}
	if err != nil {
		return errors.Join(err, got.Close())
	}
	err = m.Close()
	*m = got
	return err
}

func readPicture(path string) ([]byte, error) {
	// A pipe would block in Open.
	st, err := os.Stat(path)
	if err != nil {
		return nil, plain(err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("no file")
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, plain(err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxPictureBytes+1))
	switch {
	case err != nil:
		return nil, plain(err)
	case len(data) > maxPictureBytes:
		return nil, fmt.Errorf("larger than %d bytes", maxPictureBytes)
	case len(data) == 0:
		return nil, fmt.Errorf("empty")
	}
	return data, nil
}

func (f *folder) skipped() (uint64, error) { return f.bad, f.badErr }

func (f *folder) info() Info { return Info{Backend: "folder"} }

func (f *folder) close() error { return nil }
