package cage

import (
	"encoding/binary"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// TestConditionsDoNotLeakIntoOtherCalls runs the filter on calls that pass a
// condition of another rule: what the argument is must not decide for a call of
// that number.
func TestConditionsDoNotLeakIntoOtherCalls(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Skip(err)
	}
	raw, err := filter(Infer, info, 1)
	if err != nil {
		t.Fatal(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter has instructions that do not disassemble")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	const allowed = 0x7fff0000
	for _, tc := range []struct {
		name  string
		call  string
		arg   int
		value uint64
		want  uint32
	}{
		{"Go's heap grows", "mmap", 3, unix.MAP_FIXED | unix.MAP_ANONYMOUS | unix.MAP_PRIVATE, allowed},
		{"a thread's stack", "mmap", 3, unix.MAP_ANONYMOUS | unix.MAP_PRIVATE | unix.MAP_STACK | unix.MAP_NORESERVE, allowed},
		{"a model", "mmap", 3, unix.MAP_PRIVATE, allowed},
		{"shared anonymous memory", "mmap", 3, unix.MAP_SHARED | unix.MAP_ANONYMOUS, 0x50000 | uint32(unix.EPERM)},
		{"read", "openat", 2, unix.O_RDONLY | unix.O_CLOEXEC, allowed},
		{"write", "openat", 2, unix.O_WRONLY | unix.O_CLOEXEC, 0x50000 | uint32(unix.EACCES)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// The VM reads words as network order, the kernel as native order.
			data := make([]byte, 64)
			be := binary.BigEndian
			be.PutUint32(data[0:], uint32(info.SyscallNames[tc.call]))
			be.PutUint32(data[4:], uint32(info.ID))
			be.PutUint32(data[16+8*tc.arg:], uint32(tc.value))
			be.PutUint32(data[20+8*tc.arg:], uint32(tc.value>>32))
			got, err := vm.Run(data)
			if err != nil || uint32(got) != tc.want {
				t.Errorf("%s(argument %d = %#x): %#x, %v; want %#x", tc.call, tc.arg, tc.value, uint32(got), err, tc.want)
			}
		})
	}
}
