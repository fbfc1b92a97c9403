"""A seccomp program that refuses the system calls by which sandboxed programs get at the kernel."""

import platform
import struct

ALLOW, REFUSE, MISSING = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38
"""Return values: go on, fail with EPERM, fail with ENOSYS."""

NEW_USER_NAMESPACE = 0x10000000

_LOAD, _JUMP_EQUAL, _JUMP_GREATER_OR_EQUAL, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_X86_64, _AARCH64 = 0xC000003E, 0xC00000B7
_X32_CALLS = 0x40000000

_NAMES = (
    "ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd", "perf_event_open", "bpf",
    "userfaultfd", "mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "fsopen",
    "fsconfig", "fsmount", "fspick", "mount_setattr", "setns", "unshare", "keyctl", "add_key", "request_key",
    "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon",
    "swapoff", "syslog", "quotactl", "acct", "settimeofday", "clock_settime", "adjtimex", "sethostname",
    "setdomainname", "open_by_handle_at", "name_to_handle_at", "io_uring_setup", "io_uring_enter",
    "io_uring_register", "personality", "vhangup",
)  # fmt: skip
_X86_64_NUMBERS = (
    101, 310, 311, 312, 438, 298, 321,
    323, 165, 166, 155, 161, 429, 428, 430,
    431, 432, 433, 442, 308, 272, 250, 248, 249,
    246, 320, 175, 313, 176, 169, 167,
    168, 103, 179, 163, 164, 227, 159, 170,
    171, 304, 303, 425, 426,
    427, 135, 153,
)  # fmt: skip
_AARCH64_NUMBERS = (
    117, 270, 271, 272, 438, 241, 280,
    282, 40, 39, 41, 51, 429, 428, 430,
    431, 432, 433, 442, 268, 97, 219, 217, 218,
    104, 294, 105, 273, 106, 142, 224,
    225, 116, 60, 89, 170, 112, 171, 161,
    162, 265, 264, 425, 426,
    427, 92, 58,
)  # fmt: skip
REFUSED = {
    "x86_64": dict(zip(_NAMES, _X86_64_NUMBERS, strict=True)),
    "aarch64": dict(zip(_NAMES, _AARCH64_NUMBERS, strict=True)),
}
"""System call numbers by machine, as in the kernel's asm/unistd headers."""

_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_SOCKET = {"x86_64": 41, "aarch64": 198}
_SOCKET_FAMILIES = (1, 2, 10, 16)
"""UNIX, INET, INET6, NETLINK. A vsock, for one, goes past every network namespace to the hypervisor."""


def is_supported(machine: str | None = None) -> bool:
    """Whether there is a filter for this processor."""
    return (machine or platform.machine()) in REFUSED


def program(machine: str | None = None) -> bytes:
    """The compiled filter, as bubblewrap's ``--seccomp`` reads it. Raises ``KeyError`` when unsupported.

    ``clone3`` fails as if the kernel did not know it, because a filter cannot look into its
    arguments; C libraries fall back to ``clone``, where a new user namespace can be seen and refused.
    """
    machine = machine or platform.machine()
    architecture = _X86_64 if machine == "x86_64" else _AARCH64
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, architecture, 1, 0),
        _step(_RETURN, REFUSE),
        _step(_LOAD, _NUMBER),
    ]
    if machine == "x86_64":
        # The x32 table has numbers of its own, which the list below would miss.
        code += [_step(_JUMP_GREATER_OR_EQUAL, _X32_CALLS, 0, 1), _step(_RETURN, REFUSE)]
    for number in sorted(REFUSED[machine].values()):
        code += [_step(_JUMP_EQUAL, number, 0, 1), _step(_RETURN, REFUSE)]
    code += [
        _step(_JUMP_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, MISSING),
        _step(_JUMP_EQUAL, _CLONE[machine], 0, 4),
        _step(_LOAD, _FIRST_ARGUMENT),
        _step(_JUMP_ANY_BIT, NEW_USER_NAMESPACE, 0, 1),
        _step(_RETURN, REFUSE),
        _step(_RETURN, ALLOW),
        _step(_JUMP_EQUAL, _SOCKET[machine], 1, 0),
        _step(_RETURN, ALLOW),
        _step(_LOAD, _FIRST_ARGUMENT),
        *(
            _step(_JUMP_EQUAL, family, len(_SOCKET_FAMILIES) - at, 0)
            for at, family in enumerate(_SOCKET_FAMILIES)
        ),
        _step(_RETURN, REFUSE),
        _step(_RETURN, ALLOW),
    ]
    return b"".join(code)


def _step(operation: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value)
