#!/usr/bin/env python3
# class: kernel
# tries: mount by fsopen, open_tree, move_mount, mount_setattr
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
for name, numbers in [("fsopen tmpfs", (430, ctypes.c_char_p(b"tmpfs"), 0)),
                 ("open_tree", (428, -100, ctypes.c_char_p(b"/"), 1)),
                 ("move_mount", (429, -100, ctypes.c_char_p(b"/tmp"), -100, ctypes.c_char_p(b"/mnt"), 0)),
                 ("mount_setattr", (442, -100, ctypes.c_char_p(b"/"), 0, 0, 0))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{name} works")
        sys.exit(7)
print("refused:", why)
