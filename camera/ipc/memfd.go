package ipc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Seals that make a memfd immutable for good: no write, no shrinking, no
// growing, no further seal.
const sealAll = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL

// SealedMemfd puts the bytes into a memfd that nobody, this process included,
// can change afterwards. The caller closes the file.
func SealedMemfd(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("ipc: memfd %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, fmt.Errorf("ipc: memfd %s: write %d bytes: %w", name, len(data), err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, sealAll); err != nil {
		f.Close()
		return nil, fmt.Errorf("ipc: memfd %s: seal: %w", name, err)
	}
	return f, nil
}

// ReadSealed maps nothing and trusts nothing: it checks that the descriptor is
// a memfd sealed against any change and at most max bytes, and reads it whole.
// The descriptor stays open.
func ReadSealed(fd int, max int64) ([]byte, error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, fmt.Errorf("%w: descriptor is no memfd: %v", ErrProtocol, err)
	}
	const need = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	if seals&need != need {
		return nil, fmt.Errorf("%w: memfd is not sealed (seals %#x)", ErrProtocol, seals)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("ipc: stat memfd: %w", err)
	}
	if st.Size > max {
		return nil, fmt.Errorf("%w: memfd of %d bytes, allowed %d", ErrProtocol, st.Size, max)
	}
	data := make([]byte, st.Size)
	for off := 0; off < len(data); {
		n, err := unix.Pread(fd, data[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return nil, fmt.Errorf("ipc: read memfd at %d of %d: %v", off, len(data), err)
		}
		off += n
	}
	return data, nil
}
