#!/usr/bin/env python3
# class: kernel
# tries: set up an io_uring, whose operations pass by a filter
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
for name, numbers in [("io_uring_setup", (425, 8, ctypes.create_string_buffer(120))),
                 ("io_uring_register", (427, 0, 0, 0, 0))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{name} works")
        sys.exit(7)
print("refused:", why)
