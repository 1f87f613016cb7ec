"""Becomes another program, which the system kills when the parent dies, also by SIGKILL.

    python child.py PID_OF_THE_PARENT PROGRAM [ARGUMENT ...]

Only Linux can do that. Elsewhere the program goes on without its parent.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; what the request changes outlives `exec`


def main() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(parent):  # The parent died before the request.
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
