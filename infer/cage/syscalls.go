package cage

// onlyAttackers are calls that no library under these programs makes; one of
// them kills the process in every profile.
var onlyAttackers = []string{
	"execve", "execveat",
	"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise",
	"mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr",
	"setns", "unshare",
	"init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "bpf",
	"reboot", "swapon", "swapoff", "acct", "quotactl", "quotactl_fd", "settimeofday", "clock_settime", "adjtimex", "clock_adjtime", "sethostname", "setdomainname", "syslog", "vhangup", "nfsservctl",
	"open_by_handle_at", "userfaultfd",
	"iopl", "ioperm", "modify_ldt", "uselib",
}

// notForCameras are calls that a library may try and do without.
var notForCameras = []string{
	"io_uring_setup", "io_uring_enter", "io_uring_register",
	"perf_event_open", "keyctl", "add_key", "request_key", "name_to_handle_at", "fanotify_init", "fanotify_mark", "lookup_dcookie", "personality", "seccomp",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups", "capset",
	"chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat", "removexattr", "lremovexattr", "fremovexattr", "removexattrat", "utime", "utimes", "utimensat", "futimesat",
	"truncate", "mknod", "mknodat", "link", "linkat", "symlink", "symlinkat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "creat",
	"shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semctl", "semtimedop", "msgget", "msgsnd", "msgrcv", "msgctl", "mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr",
	"setrlimit", "ioprio_set", "migrate_pages", "move_pages", "pidfd_open", "vmsplice",
}

// What the inference profiles allow, by subject. Opening for reading is
// guarded by Landlock; the sockets are the one to the parent, which exists.
var (
	callsOfFiles = []string{
		"read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "close", "close_range",
		"open", "openat", "stat", "lstat", "fstat", "newfstatat", "fstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2",
		"readlink", "readlinkat", "getdents64", "getcwd", "fcntl", "dup", "dup2", "dup3", "pipe", "pipe2", "eventfd", "eventfd2",
		"fadvise64",
	}
	callsOfMemory = []string{
		"mmap", "munmap", "mprotect", "mremap", "madvise", "brk", "mincore", "membarrier",
		"memfd_create", "ftruncate", "get_mempolicy",
	}
	callsOfThreads = []string{
		"futex", "futex_waitv", "futex_wait", "futex_wake", "set_robust_list", "get_robust_list", "rseq", "set_tid_address", "arch_prctl",
		"exit", "exit_group", "gettid", "getpid", "getppid", "getpgrp", "getpgid", "getsid",
		"sched_yield", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_getscheduler", "sched_get_priority_max", "sched_get_priority_min", "getpriority", "getcpu",
		"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "restart_syscall", "pause",
	}
	callsOfTime = []string{
		"clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time", "times",
		"timer_create", "timer_settime", "timer_gettime", "timer_delete", "setitimer", "getitimer",
	}
	callsOfMessages = []string{
		"epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6",
		"sendmsg", "recvmsg", "sendto", "recvfrom", "shutdown", "getsockopt",
	}
	callsOfFacts = []string{
		"uname", "sysinfo", "getrusage", "getrlimit", "getrandom",
		"getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "capget",
	}
)

// prctlOptions are the harmless ones: names of threads and of memory, and the
// width of arm64's vectors.
var prctlOptions = []uint32{
	3,          // PR_GET_DUMPABLE
	15,         // PR_SET_NAME
	16,         // PR_GET_NAME
	23,         // PR_CAPBSET_READ
	39,         // PR_GET_NO_NEW_PRIVS
	51,         // PR_SVE_GET_VL
	56,         // PR_GET_TAGGED_ADDR_CTRL
	64,         // PR_SME_GET_VL
	0x53564d41, // PR_SET_VMA, names of mappings
}
