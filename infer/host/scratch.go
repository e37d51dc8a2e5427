package host

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

// scratchBytes holds the largest picture and the largest input tensor. It costs
// only the pages that are touched.
const scratchBytes = max(camera.MaxFrameBytes, infer.MaxTensorBytes)

// scratch is memory that this process writes and the child only reads.
type scratch struct {
	file *os.File // for the child
	mem  []byte   // for us
}

func newScratch() (*scratch, error) {
	fd, err := unix.MemfdCreate("drover-scratch", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("infer/host: scratch memory: %w", err)
	}
	s := &scratch{file: os.NewFile(uintptr(fd), "drover-scratch")}
	if err := unix.Ftruncate(fd, scratchBytes); err != nil {
		s.close()
		return nil, fmt.Errorf("infer/host: scratch memory of %d bytes: %w", scratchBytes, err)
	}
	if s.mem, err = unix.Mmap(fd, 0, scratchBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		s.close()
		return nil, fmt.Errorf("infer/host: map scratch memory: %w", err)
	}
	if err := s.seal(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// seal leaves our mapping as the only one that can write. Kernels before 5.1
// lack the seal for that; there the child gets a descriptor for reading.
func (s *scratch) seal() error {
	const size = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	_, err := unix.FcntlInt(s.file.Fd(), unix.F_ADD_SEALS, size|unix.F_SEAL_FUTURE_WRITE|unix.F_SEAL_SEAL)
	if err == nil {
		return nil
	}
	if _, err := unix.FcntlInt(s.file.Fd(), unix.F_ADD_SEALS, size|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("infer/host: seal scratch memory: %w", err)
	}
	ro, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", s.file.Fd()))
	if err != nil {
		return fmt.Errorf("infer/host: scratch memory for reading: %w", err)
	}
	s.file.Close()
	s.file = ro
	return nil
}

func (s *scratch) close() {
	if s.mem != nil {
		unix.Munmap(s.mem)
		s.mem = nil
	}
	s.file.Close()
}
