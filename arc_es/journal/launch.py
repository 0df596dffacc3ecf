"""Become nats-server, or a worker, in such a way that it dies with the service.

A script: launch.py PARENT_PID PROGRAM [ARG ...].

The kernel signals a child when the parent *thread* that forked it ends; so the service forks this from its main thread
(trio's own `open_process` forks in a worker thread that ends when idle). SIGKILL rather than SIGTERM: the service is
gone, nobody is left to notice a server that hangs while stopping, and what was acknowledged has been fsynced.

A program of its own because Python code between fork and exec (`preexec_fn`) may deadlock in a process with threads.
Only the standard library, and little of it: this start-up time is paid at each start of the server.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From <linux/prctl.h>."""


def main() -> None:
    """Ask for the signal, look whether the parent died before that, then exec.

    Raises:
        OSError: the kernel refused, or the program cannot be executed.
    """
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        sys.exit(f"the service died while it started {command[0]}")
    os.execv(command[0], command)  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main()
