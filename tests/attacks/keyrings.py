#!/usr/bin/env python3
# class: kernel
# tries: read and add keys of the kernel's keyrings
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
for name, numbers in [("add_key", (248, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"attack"), ctypes.c_char_p(b"x"), 1, -3)),
                 ("keyctl", (250, 0, -3, 0)),
                 ("request_key", (249, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), 0, -3))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{name} works")
        sys.exit(7)
print("refused:", why)
