#!/usr/bin/env python3
# class: kernel
# tries: load a kernel module, or another kernel
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
for name, numbers in [("init_module", (175, 0, 0, ctypes.c_char_p(b""))),
                 ("finit_module", (313, 0, ctypes.c_char_p(b""), 0)),
                 ("delete_module", (176, ctypes.c_char_p(b"x"), 0)),
                 ("kexec_load", (246, 0, 0, 0, 0))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{name} works")
        sys.exit(7)
print("refused:", why)
