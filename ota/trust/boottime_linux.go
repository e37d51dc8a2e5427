package trust

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// kernelBoottime counts from boot and through suspend.
func kernelBoottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // no time passes: metadata then expires later, never wrongly early
	}
	return time.Duration(ts.Nano())
}

// kernelBoot names this boot; empty where the kernel does not say.
func kernelBoot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
