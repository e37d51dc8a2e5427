package camera

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The frame ring: how pixels get from the one process that captures to the
// processes that look, without a copy through a socket and without any reader
// being able to slow the writer down.
//
// It is a memfd of one header page and N slots. The parent creates it
// (NewRing), the camera child maps it (OpenWriter), the parent then seals it
// for good (SealRing) and hands it to readers (OpenReader), which can map it
// for reading only. The writer fills the slots in turn and publishes a ticket,
// the running count of frames; a reader looks at the newest ticket alone, so
// that what it missed is gone and shows as a gap in Frame.Seq.
//
//	page 0   magic, version, slots, slot bytes (set once by the parent), ticket
//	slot i   128 bytes of header: lock, seq, captured, size, format; then pixels
//
// Each slot has a sequence lock: odd while it is being written, even and
// different afterwards. A reader copies, and believes the copy only if the
// lock was even and the same before and after.
//
// The writer's process decodes hostile streams, so a reader trusts nothing in
// the mapping: geometry is read once and compared with the sealed size of the
// file, every frame header is copied before it is checked, and retries are
// bounded. A hostile writer can make garbage pixels and errors, nothing else.

// Limits and defaults of a ring. Memory is taken only for bytes that were ever
// written: slots larger than the frames cost nothing.
const (
	MinSlots = 2
	MaxSlots = 64

	DefaultSlots     = 4
	DefaultSlotBytes = 3840 * 2160 * 3 // a 4K frame of BGR8
)

const (
	ringMagic   = 0x31474e4952565244 // "DRVRING1", little endian
	ringVersion = 1

	ringPage   = 4096
	slotHeader = 128 // keeps pixels on a cache line of their own

	offMagic   = 0
	offVersion = 8
	offSlots   = 12
	offBytes   = 16
	offTicket  = 64

	slotLock     = 0
	slotSeq      = 8
	slotCaptured = 16
	slotSize     = 24 // width, height: 4 bytes each
	slotLayout   = 32 // stride, format: 4 bytes each
)

const (
	sealsOfNewRing = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	sealsForGood   = unix.F_SEAL_FUTURE_WRITE | unix.F_SEAL_SEAL
)

// ErrRing is wrapped by errors that say a file is no usable ring.
var ErrRing = errors.New("camera: not a frame ring")

// ErrTooLarge is wrapped when a frame does not fit into a slot.
var ErrTooLarge = errors.New("camera: frame larger than a slot of the ring")

// NewRing creates a ring of slots (MinSlots…MaxSlots) that each hold up to
// slotBytes bytes of pixels (1…MaxFrameBytes). It can no longer change its
// size, and it is not mapped here. The caller closes the file; mappings made
// from it live on.
func NewRing(slots, slotBytes int) (*os.File, error) {
	geo := geometry{slots: slots, slotBytes: slotBytes}
	if err := geo.check(); err != nil {
		return nil, fmt.Errorf("camera: new ring: %w", err)
	}
	fd, err := unix.MemfdCreate("drover-ring", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("camera: new ring: memfd: %w", err)
	}
	f := os.NewFile(uintptr(fd), "drover-ring")
	if err := layOut(fd, geo); err != nil {
		f.Close()
		return nil, fmt.Errorf("camera: new ring of %d × %d bytes: %w", slots, slotBytes, err)
	}
	return f, nil
}

func layOut(fd int, geo geometry) error {
	if err := unix.Ftruncate(fd, geo.size()); err != nil {
		return fmt.Errorf("size: %w", err)
	}
	head := make([]byte, offTicket)
	le := binary.LittleEndian
	le.PutUint64(head[offMagic:], ringMagic)
	le.PutUint32(head[offVersion:], ringVersion)
	le.PutUint32(head[offSlots:], uint32(geo.slots))
	le.PutUint64(head[offBytes:], uint64(geo.slotBytes))
	if _, err := unix.Pwrite(fd, head, 0); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, sealsOfNewRing); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}

// SealRing takes from everybody the right to map the ring for writing or to
// write to the file; the mapping that the camera child has by then stays. Call
// it when the child said that it has mapped, and before any reader gets the
// file. A second call finds the work done and returns nil.
func SealRing(f *os.File) error {
	seals, err := getSeals(f)
	if err == nil && seals&sealsForGood == sealsForGood {
		return nil
	}
	if err == nil {
		_, err = fcntl(f, unix.F_ADD_SEALS, sealsForGood)
	}
	if err != nil {
		return fmt.Errorf("camera: seal ring: %w", err)
	}
	return nil
}

func getSeals(f *os.File) (int, error) { return fcntl(f, unix.F_GET_SEALS, 0) }

// fcntl goes through SyscallConn, because Fd would switch the file to blocking.
func fcntl(f *os.File, cmd, arg int) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var out int
	var callErr error
	if err := rc.Control(func(fd uintptr) { out, callErr = unix.FcntlInt(fd, cmd, arg) }); err != nil {
		return 0, err
	}
	return out, callErr
}

// geometry is what the header page says and the file's size confirms.
type geometry struct {
	slots     int
	slotBytes int
}

func (g geometry) check() error {
	switch {
	case g.slots < MinSlots || g.slots > MaxSlots:
		return fmt.Errorf("%w: %d slots, allowed %d…%d", ErrRing, g.slots, MinSlots, MaxSlots)
	case g.slotBytes < 1 || g.slotBytes > MaxFrameBytes:
		return fmt.Errorf("%w: slots of %d bytes, allowed 1…%d", ErrRing, g.slotBytes, MaxFrameBytes)
	case g.size() != int64(int(g.size())):
		return fmt.Errorf("%w: %d bytes do not fit this machine's address space", ErrRing, g.size())
	}
	return nil
}

func (g geometry) slotStride() int64 {
	return (int64(slotHeader) + int64(g.slotBytes) + ringPage - 1) / ringPage * ringPage
}

func (g geometry) size() int64 { return ringPage + int64(g.slots)*g.slotStride() }

// mapping is the ring in this process's address space.
type mapping struct {
	mem []byte
	geo geometry
}

// mapRing checks that f is a ring that cannot change its size under the
// mapping (which would be a SIGBUS), and maps it.
func mapRing(f *os.File, prot int) (mapping, error) {
	seals, err := getSeals(f)
	if err != nil {
		return mapping{}, fmt.Errorf("%w: no memfd: %v", ErrRing, err)
	}
	if seals&sealsOfNewRing != sealsOfNewRing {
		return mapping{}, fmt.Errorf("%w: size is not sealed (seals %#x)", ErrRing, seals)
	}
	geo, err := readGeometry(f)
	if err != nil {
		return mapping{}, err
	}
	rc, err := f.SyscallConn()
	if err != nil {
		return mapping{}, fmt.Errorf("map: %w", err)
	}
	var mem []byte
	var mapErr error
	err = rc.Control(func(fd uintptr) {
		mem, mapErr = unix.Mmap(int(fd), 0, int(geo.size()), prot, unix.MAP_SHARED)
	})
	if err = errors.Join(err, mapErr); err != nil {
		return mapping{}, fmt.Errorf("map %d bytes: %w", geo.size(), err)
	}
	return mapping{mem: mem, geo: geo}, nil
}

func readGeometry(f *os.File) (geometry, error) {
	var head [offTicket]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return geometry{}, fmt.Errorf("%w: header: %v", ErrRing, err)
	}
	le := binary.LittleEndian
	if m := le.Uint64(head[offMagic:]); m != ringMagic {
		return geometry{}, fmt.Errorf("%w: magic %#x", ErrRing, m)
	}
	if v := le.Uint32(head[offVersion:]); v != ringVersion {
		return geometry{}, fmt.Errorf("%w: version %d, this program knows %d", ErrRing, v, ringVersion)
	}
	slots, bytes := le.Uint32(head[offSlots:]), le.Uint64(head[offBytes:])
	if slots > MaxSlots || bytes > MaxFrameBytes {
		return geometry{}, fmt.Errorf("%w: %d slots of %d bytes", ErrRing, slots, bytes)
	}
	geo := geometry{slots: int(slots), slotBytes: int(bytes)}
	if err := geo.check(); err != nil {
		return geometry{}, err
	}
	st, err := f.Stat()
	if err != nil {
		return geometry{}, fmt.Errorf("%w: stat: %v", ErrRing, err)
	}
	if st.Size() != geo.size() {
		return geometry{}, fmt.Errorf("%w: file of %d bytes, its header needs %d", ErrRing, st.Size(), geo.size())
	}
	return geo, nil
}

func (m *mapping) close() error {
	mem := m.mem
	m.mem = nil
	if mem == nil {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("camera: unmap ring: %w", err)
	}
	return nil
}

// slot returns the memory of the slot that a ticket stands for.
func (m *mapping) slot(ticket uint64) []byte {
	size := m.geo.slotStride()
	off := ringPage + int64(ticket%uint64(m.geo.slots))*size
	return m.mem[off : off+size]
}

func (m *mapping) ticket() *atomic.Uint64 { return word64(m.mem, offTicket) }

// word64 sees a word of the mapping as an atomic. The mapping is
// page aligned and all offsets are multiples of 8.
func word64(b []byte, off int) *atomic.Uint64 {
	return (*atomic.Uint64)(unsafe.Pointer(&b[off : off+8][0]))
}
