#!/usr/bin/env python3
# class: kernel
# tries: make system calls of another architecture, past a filter that looks at numbers
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
for name, numbers in [("x32 getpid", (0x40000000 + 39,)),
                 ("x32 ptrace", (0x40000000 + 521, 16, 1, 0, 0))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{name} works")
        sys.exit(7)
print("refused:", why)
