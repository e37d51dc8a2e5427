//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"context"
	"fmt"
	"time"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
)

// reader is one way to get frames.
type reader interface {
	// read puts the next picture into m and says when it was taken; errors are
	// *camera.Fault.
	read(m *gocv.Mat) (time.Duration, error)
	skipped() (uint64, error)
	info() Info
	close() error
}

// Capture is an open source. It is for one goroutine at a time.
type Capture struct {
	from  reader
	mat   gocv.Mat // the picture last read
	other gocv.Mat // the same, when its layout had to be changed
}

// Open opens src. Errors are of type *camera.Fault. The context bounds only
// the first contact with a network source; after that see the package comment.
func Open(ctx context.Context, src camera.Source, patience Patience) (*Capture, error) {
	var from reader
	var err error
	if src.Kind == camera.SourceFolder {
		from, err = openFolder(src)
	} else {
		from, err = openVideo(ctx, src, patience)
	}
	if err != nil {
		return nil, err
	}
	return &Capture{from: from, mat: gocv.NewMat(), other: gocv.NewMat()}, nil
}

// Read reads the next picture and fills f but for Seq. CapturedAt is when the
// picture was taken, as near as the source tells. f.Data is OpenCV's memory, valid until
// the next Read or Close. Errors are of type *camera.Fault; after one the source
// is of no more use.
func (c *Capture) Read(f *camera.Frame) error {
	taken, err := c.from.read(&c.mat)
	if err != nil {
		return err
	}
	f.CapturedAt = taken
	m := &c.mat
	if m.Type() == gocv.MatTypeCV8UC4 {
		if err := gocv.CvtColor(c.mat, &c.other, gocv.ColorBGRAToBGR); err != nil {
			return faultf(camera.FaultInternal, "drop the alpha channel: %w", err)
		}
		m = &c.other
	} else if !m.IsContinuous() {
		if err := c.mat.CopyTo(&c.other); err != nil {
			return faultf(camera.FaultInternal, "copy picture: %w", err)
		}
		m = &c.other
	}
	switch m.Type() {
	case gocv.MatTypeCV8UC3:
		f.Format = camera.BGR8
	case gocv.MatTypeCV8UC1:
		f.Format = camera.Gray8
	default:
		return faultf(camera.FaultDecode, "pictures of OpenCV type %v, only 8-bit gray and BGR are understood", m.Type())
	}
	data, err := m.DataPtrUint8()
	if err != nil {
		return faultf(camera.FaultInternal, "pixels: %w", err)
	}
	f.Width, f.Height, f.Stride, f.Data = m.Cols(), m.Rows(), m.Step(), data
	if err := f.Check(); err != nil {
		return &camera.Fault{Kind: camera.FaultTooLarge, Err: err}
	}
	return nil
}

// Skipped counts the pictures of a folder that could not be read, and gives
// the error of the last one.
func (c *Capture) Skipped() (uint64, error) { return c.from.skipped() }

// Info says what has been opened.
func (c *Capture) Info() Info { return c.from.info() }

// Close frees everything native. It must not be called while Read runs.
func (c *Capture) Close() error {
	err := c.from.close()
	c.mat.Close()
	c.other.Close()
	return err
}

// Version is the version of the OpenCV library in use.
func Version() string { return gocv.OpenCVVersion() }

func faultf(kind camera.FaultKind, format string, args ...any) error {
	return &camera.Fault{Kind: kind, Err: fmt.Errorf(format, args...)}
}
