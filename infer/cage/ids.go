package cage

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// dropRoot takes the plan's ids and the groups of its devices. It says whether
// the uid is another one now; its capabilities are then out of effect, and
// openReadPaths must be called to be rid of them.
func dropRoot(p plan, note func(string, ...any)) (changed bool, err error) {
	if os.Geteuid() != 0 {
		note("not started as root: runs under the parent's user id %d", os.Geteuid())
		return false, nil
	}
	if err := syscall.Setgroups(deviceGroups(p.Devices)); err != nil {
		return false, fmt.Errorf("set groups: %w", err)
	}
	if err := syscall.Setresgid(p.GID, p.GID, p.GID); err != nil {
		return false, fmt.Errorf("take group id %d: %w", p.GID, err)
	}
	// openReadPaths decides what is kept of root's capabilities.
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return false, fmt.Errorf("keep capabilities for a moment: %w", err)
	}
	if err := syscall.Setresuid(p.UID, p.UID, p.UID); err != nil {
		return false, fmt.Errorf("take user id %d: %w", p.UID, err)
	}
	return true, nil
}

// deviceGroups are the groups whose members may use the devices, such as video
// and plugdev: never root's.
func deviceGroups(devices []string) []int {
	groups := []int{}
	seen := map[uint32]bool{0: true}
	add := func(path string) {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Mode&0o060 != 0 && !seen[st.Gid] {
			seen[st.Gid] = true
			groups = append(groups, int(st.Gid))
		}
	}
	for _, d := range devices {
		add(d)
		inside, _ := filepath.Glob(filepath.Join(d, "*", "*")) // /dev/bus/usb/001/002
		for _, f := range inside {
			add(f)
		}
	}
	return groups
}

// openReadPaths sees to it that the child can read what it is to read, and
// drops all capabilities.
//
// Pictures and clips often stand in somebody's home, where the child's uid
// cannot go. A camera then keeps one capability, to read regardless of
// permissions, provided (mayKeep) that it was root and that Landlock confines it to its read paths; that is a
// weaker cage, so it is a gap.
func openReadPaths(p plan, mayKeep bool, note func(string, ...any)) error {
	var closed error
	for _, path := range p.ReadPaths {
		if err := unix.Access(path, unix.R_OK); err != nil {
			closed = fmt.Errorf("%s cannot be read by user id %d: %w", path, os.Geteuid(), err)
			break
		}
	}
	keep := closed != nil && mayKeep && p.Profile == Camera
	if closed != nil && !keep {
		return closed
	}
	if err := setCapabilities(keep); err != nil {
		return err
	}
	if keep {
		note("%v: reads with CAP_DAC_READ_SEARCH, held to its read paths by Landlock alone", closed)
	}
	return nil
}

// setCapabilities drops all of them, or all but the one to read everything,
// which then survives exec.
func setCapabilities(readAll bool) error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if readAll {
		const bit = 1 << unix.CAP_DAC_READ_SEARCH
		data[0] = unix.CapUserData{Effective: bit, Permitted: bit, Inheritable: bit}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	if !readAll {
		return nil
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_DAC_READ_SEARCH, 0, 0); err != nil {
		return fmt.Errorf("keep CAP_DAC_READ_SEARCH: %w", err)
	}
	return nil
}
