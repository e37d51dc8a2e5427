//go:build cgo

package prep

import (
	"fmt"
	"image"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

// Supported says whether this program contains OpenCV.
const Supported = true

// OpenCV is the version of the OpenCV library.
func OpenCV() string { return gocv.OpenCVVersion() }

// Plan prepares frames for one model. It owns buffers that are reused from
// frame to frame, so it is for one goroutine at a time; Close frees them.
type Plan struct {
	tensor
	spec  infer.Preprocess
	bytes int // of the input tensor

	shrink antialias
	crop   buffer // the rectangle of the frame that counts
	sized  buffer // at the size it takes in the input
	gray   buffer // luma of sized
	canvas []byte // letterbox: input size, bars filled
	last   geometry
}

// geometry is what decides where everything stands; it seldom changes.
type geometry struct {
	width, height, channels int
	rect, at                image.Rectangle
}

// New makes a plan. The error wraps infer.ErrContract or ErrSpec.
func New(spec infer.Spec) (*Plan, error) {
	if err := spec.Check(); err != nil {
		return nil, fmt.Errorf("prep: %w", err)
	}
	h, w, _, layout, err := spec.Contract.InputGeometry()
	if err != nil {
		return nil, fmt.Errorf("prep: %w", err)
	}
	if w > camera.MaxSide || h > camera.MaxSide {
		return nil, fmt.Errorf("%w: input of %d×%d pixels, allowed %d a side", ErrSpec, w, h, camera.MaxSide)
	}
	tables, err := makeTables(&spec)
	if err != nil {
		return nil, err
	}
	return &Plan{
		tensor: tensor{
			width: w, height: h,
			tables: tables,
			float:  spec.Contract.Input.DType == infer.Float32,
			planar: layout == infer.NCHW,
			rgb:    spec.Preprocess.Color == infer.RGB,
		},
		spec:  spec.Preprocess,
		bytes: spec.Contract.Input.Bytes(),
	}, nil
}

// Close frees the buffers.
func (p *Plan) Close() {
	p.crop.close()
	p.sized.close()
	p.gray.close()
}

// Prepare fills dst, the whole input tensor, from a frame. The frame is only
// read. The error wraps camera.ErrFrame when the frame is impossible. Nothing
// is allocated while the frames' size and format stay the same.
func (p *Plan) Prepare(f *camera.Frame, dst []byte) error {
	if err := f.Check(); err != nil {
		return fmt.Errorf("prep: %w", err)
	}
	if len(dst) != p.bytes {
		return fmt.Errorf("prep: internal error: tensor of %d bytes, spec says %d", len(dst), p.bytes)
	}
	p.locate(f)
	src, err := p.resample(f)
	if err != nil {
		return err
	}
	if len(p.tables) == 1 && src.channels == 3 {
		if src, err = p.luma(src); err != nil {
			return err
		}
	}
	if p.spec.Fit == infer.Letterbox && p.last.at != image.Rect(0, 0, p.width, p.height) {
		src = p.frameIn(src)
	}
	p.fill(src, dst)
	return nil
}

func (p *Plan) locate(f *camera.Frame) {
	ch := f.Format.Channels()
	if p.last.width == f.Width && p.last.height == f.Height && p.last.channels == ch {
		return
	}
	p.last = geometry{width: f.Width, height: f.Height, channels: ch}
	p.last.rect = region(&p.spec, f.Width, f.Height, p.width, p.height)
	p.last.at = placed(&p.spec, p.last.rect, p.width, p.height)
	p.canvas = nil
}

// resample returns the rectangle at its size in the input: out of the frame's
// own memory when it has that size, else out of a buffer.
func (p *Plan) resample(f *camera.Frame) (picture, error) {
	g := &p.last
	start := g.rect.Min.Y*f.Stride + g.rect.Min.X*g.channels
	if g.rect.Size() == g.at.Size() {
		return picture{pix: f.Data[start:], stride: f.Stride, channels: g.channels}, nil
	}
	if p.spec.Interpolation == infer.Antialias {
		p.shrink.shape(g.rect.Size(), g.at.Size(), g.channels)
		return p.shrink.resize(picture{pix: f.Data[start:], stride: f.Stride, channels: g.channels}), nil
	}
	w, h := g.rect.Dx(), g.rect.Dy()
	if err := p.crop.shape(w, h, g.channels); err != nil {
		return picture{}, err
	}
	if err := p.sized.shape(g.at.Dx(), g.at.Dy(), g.channels); err != nil {
		return picture{}, err
	}
	for y := range h {
		row := w * g.channels
		copy(p.crop.pix[y*row:(y+1)*row], f.Data[start+y*f.Stride:])
	}
	if err := gocv.Resize(p.crop.mat, &p.sized.mat, g.at.Size(), 0, 0, p.interpolation()); err != nil {
		return picture{}, fmt.Errorf("prep: resize %d×%d to %d×%d: %w", w, h, g.at.Dx(), g.at.Dy(), err)
	}
	return p.sized.picture(), nil
}

func (p *Plan) interpolation() gocv.InterpolationFlags {
	switch p.spec.Interpolation {
	case infer.Nearest:
		return gocv.InterpolationNearestNeighbor
	case infer.Area:
		if p.last.at.Dx() <= p.last.rect.Dx() && p.last.at.Dy() <= p.last.rect.Dy() {
			return gocv.InterpolationArea
		}
	}
	return gocv.InterpolationLinear
}

func (p *Plan) luma(src picture) (picture, error) {
	w, h := p.last.at.Dx(), p.last.at.Dy()
	if err := p.gray.shape(w, h, 1); err != nil {
		return picture{}, err
	}
	if err := p.sized.shape(w, h, 3); err != nil {
		return picture{}, err
	}
	if &src.pix[0] != &p.sized.pix[0] { // straight out of the frame
		for y := range h {
			copy(p.sized.pix[y*w*3:(y+1)*w*3], src.pix[y*src.stride:])
		}
	}
	if err := gocv.CvtColor(p.sized.mat, &p.gray.mat, gocv.ColorBGRToGray); err != nil {
		return picture{}, fmt.Errorf("prep: luma of %d×%d: %w", w, h, err)
	}
	return p.gray.picture(), nil
}

// frameIn puts the picture between the letterbox's bars.
func (p *Plan) frameIn(src picture) picture {
	row := p.width * src.channels
	if p.canvas == nil {
		p.canvas = make([]byte, row*p.height)
		for i := range p.canvas {
			p.canvas[i] = p.spec.Pad
		}
	}
	at := p.last.at
	n := at.Dx() * src.channels
	for y := range at.Dy() {
		out := p.canvas[(at.Min.Y+y)*row+at.Min.X*src.channels:]
		copy(out[:n], src.pix[y*src.stride:])
	}
	return picture{pix: p.canvas, stride: row, channels: src.channels}
}
