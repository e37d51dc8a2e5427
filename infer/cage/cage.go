// Package cage locks up the child programs that touch what drover does not
// trust: a model, which is code, and pictures and streams, which come from
// anywhere.
//
// A cage is built in two steps, because no filter that forbids exec can be set
// before the exec it must survive.
//
//  1. The launcher stage. Command does not start the program, it starts the
//     running binary again as "__cage" (Main, first thing in main). That stage
//     gives up everything the program will not need: it takes an unprivileged
//     uid and gid, no_new_privs, resource limits, an empty environment and a
//     Landlock domain in which it may execute the program and its loader,
//     read libraries and a few facts about the CPU, and write nothing. Then it
//     becomes the program.
//  2. Seal. The program loads its libraries, then closes the door behind
//     itself: seccomp on all threads. Only then may it be given anything
//     hostile.
//
// What holds whom:
//
//	                        infer            infer-tpu          camera
//	files                   Landlock: libraries and CPU facts to read, nothing to write
//	                                         + USB, /dev/apex   + its devices and read paths, network configuration
//	sockets                 none             netlink            internet, Unix, netlink; none may listen
//	new processes           none             none               none
//	exec, ptrace, mount …   kill             kill               kill
//	system calls            allow-list       allow-list         deny-list
//	memory                  RLIMIT_DATA, RLIMIT_AS, first in line for the OOM killer
//
// The inference profiles use an allow-list: what a TFLite graph needs after its
// libraries are loaded is small and known, and what is not known must not reach
// the kernel. A call outside the list fails with EPERM, as it would on a
// kernel that forbids it, so that a library's harmless probe (a socket, a CPU
// counter) does not end the process. The camera profile is a deny-list:
// OpenCV, FFmpeg and GStreamer call whatever their plug-ins call. In all
// profiles the calls that only an attacker makes (exec, ptrace, mounts, kernel
// modules, other processes' memory …) kill the process, so that the attempt is
// seen, and so does a call through another architecture's table (int 0x80 on
// amd64), which a deny-list would otherwise let through.
//
// Nothing here fails because a kernel is old: what cannot be enforced becomes a
// gap, in words, in the Report that Seal returns and the parent shows. What
// fails although the kernel has it is an error, and the program does not start.
package cage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Profile names what a child may do.
type Profile string

// The profiles.
const (
	Infer    Profile = "infer"     // one model on the CPU
	InferTPU Profile = "infer-tpu" // one model through an external delegate that drives a USB or PCIe device
	Camera   Profile = "camera"    // one camera: devices, files or network streams
)

// BaseUID is the first of the unprivileged ids, user and group alike, that
// root gives to its children: one per profile.
const BaseUID = 64100

// MaxFiles is how many descriptors may be handed to a child.
const MaxFiles = 8

// ErrOptions is wrapped by errors about Options that make no sense.
var ErrOptions = errors.New("cage: options")

// Options says what to lock up, and how.
type Options struct {
	Profile Profile
	Program string   // absolute path of an ELF program
	Args    []string // without the program's name; visible to every user of the machine, so no secrets
	Env     []string // KEY=value, on top of what the profile needs; nothing is inherited

	// UID and GID are taken when the caller is root; 0 means the profile's
	// own id from BaseUID on. A caller who is not root cannot change them: the
	// child keeps the caller's, and that is a gap.
	UID, GID int

	MemoryBytes int64 // private writable memory (RLIMIT_DATA); 0 means no limit
	NoFile      int   // open descriptors; 0 means 64, for the camera 256
	NProc       int   // threads of the uid; 0 means 64 per child for up to 16 children; not applied when the uid is shared with the caller

	ReadPaths []string // files and folders the child may read; must exist
	Devices   []string // device nodes, or folders of them, the child may read, write and control; missing ones are ignored

	Stderr io.Writer  // nil: discarded
	Files  []*os.File // become descriptors 3, 4, … of the child; stay the caller's
}

// check says whether the options make sense, and fills in the defaults.
func (o Options) check() (Options, error) {
	switch o.Profile {
	case Infer, InferTPU, Camera:
	default:
		return o, fmt.Errorf("%w: unknown profile %q", ErrOptions, o.Profile)
	}
	if !filepath.IsAbs(o.Program) {
		return o, fmt.Errorf("%w: program %q is no absolute path", ErrOptions, o.Program)
	}
	for _, p := range append(append([]string{}, o.ReadPaths...), o.Devices...) {
		if !filepath.IsAbs(p) {
			return o, fmt.Errorf("%w: %q is no absolute path", ErrOptions, p)
		}
	}
	if o.UID < 0 || o.GID < 0 || o.MemoryBytes < 0 || o.NoFile < 0 || o.NProc < 0 {
		return o, fmt.Errorf("%w: negative id or limit", ErrOptions)
	}
	if len(o.Files) > MaxFiles {
		return o, fmt.Errorf("%w: %d descriptors, allowed %d", ErrOptions, len(o.Files), MaxFiles)
	}
	offset := map[Profile]int{Infer: 0, InferTPU: 1, Camera: 2}[o.Profile]
	if o.UID == 0 {
		o.UID = BaseUID + offset
	}
	if o.GID == 0 {
		o.GID = o.UID
	}
	if o.NoFile == 0 {
		o.NoFile = 64
		if o.Profile == Camera {
			o.NoFile = 256
		}
	}
	if o.NProc == 0 {
		o.NProc = 1024
	}
	if o.Profile == InferTPU {
		o.Devices = append(append([]string{}, o.Devices...), "/dev/bus/usb", "/dev/apex_0", "/dev/apex_1", "/dev/apex_2", "/dev/apex_3")
	}
	return o, nil
}
