package vision

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer/cage"
)

// Bounds on a camera child that does not do its part.
const (
	handshakeTimeout = 15 * time.Second
	silenceTimeout   = 10 * time.Second // Stats come every second once a source is open
	controlTimeout   = time.Second
	stopGrace        = 2 * time.Second
)

// cameraChild is one running drover-camera with its ring. addReader,
// removeReader and preview may be called from any goroutine.
type cameraChild struct {
	process *cage.Process
	conn    *ipc.Conn
	ring    *os.File
	sealed  ipc.Sealed
	stderr  *tail

	mu       sync.Mutex
	lastID   uint64
	previews map[uint64]chan Preview
}

// Preview is one JPEG out of a camera, opaque bytes here.
type Preview struct {
	JPEG       []byte
	Width      int
	Height     int
	Seq        uint64
	CapturedAt time.Duration // CLOCK_MONOTONIC
	Missing    string        // why there is none
}

// startCameraChild starts the program in its cage and brings it to the point
// where its ring may be read. The source is not open yet.
func startCameraChild(ctx context.Context, cfg *Config, cam Camera) (*cameraChild, error) {
	src, err := cam.Config.Validate()
	if err != nil {
		return nil, err
	}
	conn, childEnd, err := ipc.Pair()
	if err != nil {
		return nil, err
	}
	ring, err := camera.NewRing(ringSlots, cfg.FrameBytes)
	if err != nil {
		childEnd.Close()
		conn.Close()
		return nil, err
	}
	c := &cameraChild{conn: conn, ring: ring, stderr: new(tail), previews: map[uint64]chan Preview{}}
	opts := cage.Options{Profile: cage.Camera, Program: cfg.Programs.Camera, UID: cfg.UID, GID: cfg.GID, Stderr: c.stderr, Files: []*os.File{childEnd}}
	if src.Path != "" {
		if src.Kind == camera.SourceV4L2 {
			opts.Devices = []string{src.Path}
		} else {
			opts.ReadPaths = []string{src.Path}
		}
	}
	c.process, err = cage.Start(context.WithoutCancel(ctx), opts)
	childEnd.Close() // or the child's end would not be noticed
	if err != nil {
		conn.Close()
		ring.Close()
		return nil, fmt.Errorf("vision: start %s: %w", cfg.Programs.Camera, err)
	}
	stop := context.AfterFunc(ctx, c.process.Kill)
	defer stop()
	if err := c.handshake(cam.Config); err != nil {
		err = c.explain(err)
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *cameraChild) handshake(cfg camera.Config) error {
	if err := c.conn.SetReadDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return err
	}
	buf := make([]byte, ipc.MaxMessage)
	if err := c.expect(buf, ipc.KindHello, new(ipc.Hello)); err != nil {
		return err
	}
	if err := c.expect(buf, ipc.KindSealed, &c.sealed); err != nil {
		return err
	}
	if err := c.conn.SendPayload(ipc.KindOpenSource, &ipc.OpenSource{Config: cfg}, int(c.ring.Fd())); err != nil {
		return err
	}
	if err := c.expect(buf, ipc.KindMapped, new(ipc.Mapped)); err != nil {
		return err
	}
	return camera.SealRing(c.ring)
}

func (c *cameraChild) expect(buf []byte, kind byte, out interface{ Check() error }) error {
	m, err := c.conn.Recv(buf)
	if err != nil {
		return err
	}
	m.CloseFDs()
	if m.Kind == ipc.KindFault {
		f := new(ipc.Fault)
		if err := ipc.DecodePayload(m.Payload, f); err != nil {
			return err
		}
		return &camera.Fault{Kind: f.Kind, Err: errors.New(f.Message)}
	}
	if m.Kind != kind {
		return fmt.Errorf("%w: message kind %d, expected %d", ipc.ErrProtocol, m.Kind, kind)
	}
	return ipc.DecodePayload(m.Payload, out)
}

// serve reads what the child says until it ends; on is called for Opened,
// Stats and Fault.
func (c *cameraChild) serve(openTimeout time.Duration, on func(any)) error {
	buf := make([]byte, ipc.MaxMessage)
	patience := openTimeout + silenceTimeout
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		m, err := c.conn.Recv(buf)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return fmt.Errorf("vision: camera child silent for %v", patience)
			}
			return err
		}
		if m.Kind == ipc.KindPreviewReply {
			err = c.previewReply(&m)
		} else {
			err = dispatch(&m, on)
		}
		m.CloseFDs()
		if err != nil {
			return err
		}
		patience = silenceTimeout
	}
}

func dispatch(m *ipc.Message, on func(any)) error {
	var v interface{ Check() error }
	switch m.Kind {
	case ipc.KindOpened:
		v = new(ipc.Opened)
	case ipc.KindStats:
		v = new(ipc.Stats)
	case ipc.KindFault:
		v = new(ipc.Fault)
	default:
		return fmt.Errorf("%w: unexpected message kind %d", ipc.ErrProtocol, m.Kind)
	}
	if err := ipc.DecodePayload(m.Payload, v); err != nil {
		return err
	}
	on(v)
	return nil
}

func (c *cameraChild) addReader(id uint32, event *os.File) error {
	return c.control(ipc.KindAddReader, &ipc.AddReader{ID: id}, camera.EventFD(event))
}

func (c *cameraChild) removeReader(id uint32) error {
	return c.control(ipc.KindRemoveReader, &ipc.RemoveReader{ID: id})
}

func (c *cameraChild) control(kind byte, v interface{ Check() error }, fds ...int) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(controlTimeout)); err != nil {
		return err
	}
	return c.conn.SendPayload(kind, v, fds...)
}

// preview asks for the newest frame as JPEG.
func (c *cameraChild) preview(ctx context.Context, width, quality int) (Preview, error) {
	reply := make(chan Preview, 1)
	c.mu.Lock()
	c.lastID++
	id := c.lastID
	c.previews[id] = reply
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.previews, id)
		c.mu.Unlock()
	}()
	if err := c.control(ipc.KindPreviewRequest, &ipc.PreviewRequest{ID: id, Width: width, Quality: quality}); err != nil {
		return Preview{}, err
	}
	select {
	case p := <-reply:
		if p.Missing != "" {
			return Preview{}, fmt.Errorf("vision: no preview: %s", p.Missing)
		}
		return p, nil
	case <-c.process.Done():
		return Preview{}, errors.New("vision: the camera's child ended")
	case <-ctx.Done():
		return Preview{}, ctx.Err()
	}
}

func (c *cameraChild) previewReply(m *ipc.Message) error {
	r := new(ipc.PreviewReply)
	if err := ipc.DecodePayload(m.Payload, r); err != nil {
		return err
	}
	p := Preview{Width: r.Width, Height: r.Height, Seq: r.Seq, CapturedAt: time.Duration(r.CapturedNs), Missing: r.Missing}
	if p.Missing == "" {
		if len(m.FDs) != 1 {
			return fmt.Errorf("%w: preview with %d descriptors", ipc.ErrProtocol, len(m.FDs))
		}
		jpeg, err := ipc.ReadSealed(m.FDs[0], ipc.MaxPreviewBytes)
		if err != nil {
			return err
		}
		p.JPEG = jpeg
	}
	c.mu.Lock()
	reply := c.previews[r.ID]
	c.mu.Unlock()
	if reply != nil {
		select {
		case reply <- p:
		default: // a second reply to one request
		}
	}
	return nil
}

// close asks the child to end, kills it after a grace, and frees everything.
func (c *cameraChild) close() {
	_ = c.control(ipc.KindStop, new(ipc.Stop))
	c.conn.Close()
	select {
	case <-c.process.Done():
	case <-time.After(stopGrace):
	}
	c.process.Kill()
	<-c.process.Done()
	c.ring.Close()
}

// explain adds what the child said last to an error of the socket.
func (c *cameraChild) explain(err error) error {
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	select {
	case <-c.process.Done():
	case <-time.After(stopGrace):
	}
	said := c.stderr.String()
	select {
	case <-c.process.Done():
		return fmt.Errorf("vision: camera child ended (%v): %s", c.process.State(), said)
	default:
		return fmt.Errorf("vision: camera child does not answer: %w: %s", err, said)
	}
}
