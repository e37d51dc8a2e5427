package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/infer/prep"
	"github.com/droverhq/drover/infer/tflite"
)

// refusal is a protocol.Refused on its way up.
type refusal struct{ protocol.Refused }

func (r *refusal) Error() string { return r.Message }

func refuse(kind protocol.RefusalKind, err error) error {
	return &refusal{protocol.Refused{Kind: kind, Message: err.Error()}}
}

// asRefused finds a refusal in err, or returns nil.
func asRefused(err error) *protocol.Refused {
	var r *refusal
	if errors.As(err, &r) {
		return &r.Refused
	}
	return nil
}

// load opens the model that came with a Load message and warms it up. The
// error is a *refusal when the model is to blame.
func (e *engine) load(m *ipc.Message) (*protocol.Loaded, error) {
	var req protocol.Load
	if err := decode(m, "Load", &req); err != nil {
		return nil, err
	}
	want := 1
	if req.ScratchBytes != 0 {
		want = 2
	}
	if len(m.FDs) != want || req.ScratchBytes < 0 || req.ScratchBytes > max(camera.MaxFrameBytes, infer.MaxTensorBytes) {
		return nil, fmt.Errorf("%w: Load with %d descriptors and %d bytes of scratch", errParent, len(m.FDs), req.ScratchBytes)
	}
	start := time.Now()
	model, err := mapSealed(m.FDs[0], infer.MaxModelBytes)
	if err != nil {
		return nil, err
	}
	if want == 2 {
		if e.scratch, err = mapScratch(m.FDs[1], req.ScratchBytes); err != nil {
			return nil, err
		}
	}
	if err := e.open(model, &req); err != nil {
		return nil, err
	}
	out := &protocol.Loaded{Contract: e.interp.Contract(), LoadMicros: time.Since(start).Microseconds()}
	used, fallback := e.interp.Delegate()
	out.Delegate, out.Fallback = protocol.Delegate(used), fallback
	start = time.Now()
	if err := e.interp.Invoke(); err != nil {
		return nil, refuse(protocol.RefusedModel, fmt.Errorf("the first inference failed: %w", err))
	}
	out.WarmMicros = time.Since(start).Microseconds()
	return out, nil
}

func (e *engine) open(model []byte, req *protocol.Load) error {
	if req.Spec != nil {
		if err := req.Spec.Check(); err != nil {
			return refuse(protocol.RefusedContract, err)
		}
	}
	interp, err := tflite.Open(model, tflite.Options{
		Delegate: tflite.Delegate(req.Runtime.Delegate),
		Threads:  req.Runtime.Threads,
		Library:  req.Runtime.Library,
		Options:  req.Runtime.Options,
	})
	var r *tflite.Refusal
	switch {
	case errors.As(err, &r):
		return refuse(protocol.RefusalKind(r.Kind), err)
	case err != nil:
		return refuse(protocol.RefusedInternal, err)
	}
	e.interp = interp
	if req.Spec == nil {
		return nil
	}
	if err := interp.Contract().Diff(req.Spec.Contract); err != nil {
		return refuse(protocol.RefusedContract, err)
	}
	if e.plan, err = prep.New(*req.Spec); err != nil {
		return refuse(protocol.RefusedContract, err)
	}
	return nil
}

// mapSealed maps a memfd that nobody can change any more. The mapping lives as
// long as the process, like the model that is read out of it.
func mapSealed(fd int, limit int64) ([]byte, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: the model's descriptor is no memfd: %v", errParent, err)
	}
	const need = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	if seals&need != need {
		return nil, fmt.Errorf("%w: the model's memfd is not sealed (seals %#x)", errParent, seals)
	}
	size, err := sizeOf(fd)
	if err != nil {
		return nil, err
	}
	if size == 0 {
		return nil, refuse(protocol.RefusedModel, errors.New("the model is empty"))
	}
	if size > limit {
		return nil, refuse(protocol.RefusedModel, fmt.Errorf("the model has %d bytes, allowed %d", size, limit))
	}
	// Private, because kernels before 6.7 allow no shared mapping of a sealed
	// memfd, not even for reading. The pages are the same.
	return mapFile(fd, int(size), unix.MAP_PRIVATE)
}

func mapScratch(fd, size int) ([]byte, error) {
	have, err := sizeOf(fd)
	if err != nil {
		return nil, err
	}
	if have < int64(size) {
		return nil, fmt.Errorf("%w: scratch of %d bytes, Load says %d", errParent, have, size)
	}
	return mapFile(fd, size, unix.MAP_SHARED)
}

func sizeOf(fd int) (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("stat memfd: %w", err)
	}
	return st.Size, nil
}

func mapFile(fd, size, how int) ([]byte, error) {
	b, err := unix.Mmap(fd, 0, size, unix.PROT_READ, how)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes: %w", size, os.NewSyscallError("mmap", err))
	}
	return b, nil
}
