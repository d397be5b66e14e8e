#!/usr/bin/env python3
# class: kernel
# tries: push characters into the terminal of whoever started it (TIOCSTI, TIOCLINUX)
# must: be refused, or have no terminal
# needs: python3

import fcntl, os, sys
for path in ["/dev/tty", "/dev/console", "/dev/tty0"] + [f"/proc/self/fd/{n}" for n in range(3)]:
    try:
        terminal = os.open(path, os.O_RDWR | os.O_NOCTTY)
        fcntl.ioctl(terminal, 0x5412, b"x")
        print(f"pushed a character into {path}")
        sys.exit(7)
    except OSError as fault:
        last = fault
print("refused:", last)
