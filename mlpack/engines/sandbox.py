"""Run a program in a root file system of its own: ``python -I -S sandbox.py SPECIFICATION``.

A program of its own, which imports the standard library alone: it changes the process it runs in.
The specification is a JSON object with the members of :class:`Specification`. ``way`` is one of

* ``namespaces``: user (unless root), mount, network, process and host name namespaces; the root is
  read-only, ``/tmp`` is in memory, and ``/proc``, ``/sys`` and ``/dev`` are those of a container;
* ``chroot``: a change of the root alone, by root, where no file system can be mounted;
* ``loader``: the root's own loader and libraries without any privilege, and without isolation.

If the machine does not allow the way, one line ``{"unavailable": REASON}`` is written to stdout and
the exit status is :data:`UNAVAILABLE`. Else the program's own status is passed on.

Sources: unshare(2), mount(2), user_namespaces(7), prctl(2), ld.so(8).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import NoReturn, TypedDict

UNAVAILABLE = 97
"""Exit status if the machine does not allow the way."""

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_NOATIME, MS_NODIRATIME, MS_BIND, MS_REC = 1024, 2048, 4096, 16384
MS_PRIVATE, MS_RELATIME = 1 << 18, 1 << 21
_LOCKED = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME
"""What a user namespace must keep when it mounts again; as statvfs(3) has them, except two."""
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38
_DEVICES = ("null", "zero", "full", "random", "urandom")
_TEMPORARY, _SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108  # of the root, in memory
_MOST_SHARED = 64 * 1024**2
"""Bytes that ``/dev/shm`` holds, as in Docker and podman; ``/run`` and ``/dev``, too."""
_PROCESSOR = "/proc/cpuinfo"
"""In the root of another processor, what its programs are to find there."""

EMULATOR = "/run/emulator"
"""Where the emulator is inside the root."""

_libc = ctypes.CDLL(None, use_errno=True)


class Specification(TypedDict):
    """What to run, and how."""

    way: str
    root: str
    app: str
    """The directory of the model and script, which the program finds at ``place``."""

    place: str
    emulator: str
    """The emulator of the program's processor, statically linked; empty if there is none."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    user: int
    memory: int
    """Bytes of address space; of files, too."""

    temporary: int
    """Bytes that ``/tmp`` holds, in the machine's memory."""

    seconds: int
    """Processor time."""


def main() -> int:
    """Run the program; return its status, or :data:`UNAVAILABLE`."""
    specification: Specification = json.loads(sys.argv[1])
    die_with_parent()
    try:
        if specification["way"] == "loader":
            _separate(CLONE_NEWUSER | CLONE_NEWNET if os.getuid() else CLONE_NEWNET)
            _execute(specification)
        if specification["way"] == "chroot":
            _separate(CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC)
        else:
            _namespaces(specification["user"])
        return _in_child(specification)
    except OSError as error:
        return _unavailable(error)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _unavailable(error: OSError) -> int:
    where = f"{error.filename}: " if error.filename else ""
    sys.stdout.write(json.dumps({"unavailable": f"{where}{error.strerror}"}) + "\n")
    sys.stdout.flush()
    return UNAVAILABLE


def _unshare(flags: int) -> None:
    if _libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")


def _separate(flags: int) -> None:
    """Leave the network and other namespaces, if the machine allows it."""
    uid, gid = os.getuid(), os.getgid()
    try:
        _unshare(flags)
    except OSError:
        return
    if flags & CLONE_NEWUSER:
        _map_user(uid, gid, uid, gid)


def _namespaces(user: int) -> None:
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    _unshare(flags | CLONE_NEWUSER if uid else flags)
    if uid:
        _map_user(user, user, uid, gid)


def _map_user(inside: int, inside_group: int, uid: int, gid: int) -> None:
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{inside} {uid} 1"),
        ("gid_map", f"{inside_group} {gid} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123  # pathlib takes 10 ms
            file.write(text)


def _in_child(specification: Specification) -> int:
    """Run the program in a child of the first process of its namespace.

    The kernel keeps signals from the first process that it does not handle, even those by which it
    would end itself.
    """
    privileged = os.getuid() == 0
    if child := os.fork():
        return _status(child)
    die_with_parent()
    if child := os.fork():
        os._exit(_status(child))
    try:
        if specification["way"] == "namespaces":
            _mount_all(specification)
        os.chroot(specification["root"])
        os.chdir(specification["folder"])
        if privileged:
            os.setgroups([])
            os.setresgid(*[specification["user"]] * 3)
            os.setresuid(*[specification["user"]] * 3)
        _execute(specification)
    except OSError as error:
        os._exit(_unavailable(error))


def _status(child: int) -> int:
    """Wait for ``child``; return its status as a shell does, 128 more than a signal's number."""
    _, status = os.waitpid(child, 0)
    return 128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def _execute(specification: Specification) -> NoReturn:
    die_with_parent()
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    memory, seconds = specification["memory"], specification["seconds"]
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, memory),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    arguments = specification["arguments"]
    os.execve(arguments[0], arguments, specification["environment"])  # noqa: S606


def _mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    encoded = [each.encode() or None for each in (source, target, kind)]
    if _libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() or None):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"mount {target}")


def _mount_all(specification: Specification) -> None:
    """Make the root what a container sees, for this process and its children alone."""
    root, place = specification["root"], specification["root"] + specification["place"]
    _mount("none", "/", flags=MS_REC | MS_PRIVATE)
    _mount(root, root, flags=MS_BIND)
    _mount(specification["app"], place, flags=MS_BIND)
    _mount_memory(root + _TEMPORARY, "1777", specification["temporary"])
    _mount_memory(f"{root}/run", "755")
    own_processor = root + _PROCESSOR
    if specification["emulator"]:
        _bind_file(specification["emulator"], root + EMULATOR)
        if os.path.exists(own_processor):  # noqa: PTH110
            _bind_file(own_processor, f"{root}/run/cpuinfo")
    _mount_devices(root)
    _mount_proc(root)
    if os.path.exists(f"{root}/run/cpuinfo"):  # noqa: PTH110
        _mount(f"{root}/run/cpuinfo", own_processor, flags=MS_BIND)
    else:
        _mount("/sys", f"{root}/sys", flags=MS_BIND | MS_REC)
    _read_only(place)
    _read_only(root)


def _mount_memory(place: str, mode: str, most: int = _MOST_SHARED) -> None:
    _mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode},size={most}")


def _mount_devices(root: str) -> None:
    devices = {name: f"/dev/{name}" for name in _DEVICES}
    _mount_memory(f"{root}/dev", "755")
    for name, source in devices.items():
        _bind_file(source, f"{root}/dev/{name}")
    os.mkdir(root + _SHARED_MEMORY)  # noqa: PTH102
    _mount_memory(root + _SHARED_MEMORY, "1777")
    for name, target in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{target}", f"{root}/dev/{name}")  # noqa: PTH211


def _mount_proc(root: str) -> None:
    try:
        _mount("proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        # Containers cover parts of /proc, and then none can be mounted (mount_too_revealing).
        _mount("/proc", f"{root}/proc", flags=MS_BIND | MS_REC)


def _bind_file(source: str, target: str) -> None:
    with open(target, "w"):  # noqa: PTH123
        pass
    _mount(source, target, flags=MS_BIND)


def _read_only(place: str) -> None:
    kept = os.statvfs(place).f_flag
    # relatime is bit 12 in statvfs(3), and 21 in mount(2).
    kept = (kept & _LOCKED & ~MS_BIND & ~MS_RELATIME) | (MS_RELATIME if kept & 4096 else 0)
    _mount("none", place, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | kept)


if __name__ == "__main__":
    sys.exit(main())
