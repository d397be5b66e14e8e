#!/usr/bin/env python3
# class: files
# tries: open the host's root by a file handle (inode 2), as in the container escape of 2014
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("handle", ctypes.c_ubyte * 8)]
handle = Handle(8, 1, (ctypes.c_ubyte * 8)(2, 0, 0, 0, 0, 0, 0, 0))
mount = os.open("/", os.O_RDONLY)
result, why = call(304, mount, ctypes.byref(handle), 0)
if result >= 0:
    print("opened the root by its handle:", os.listdir(f"/proc/self/fd/{result}"))
    sys.exit(7)
print("refused:", why)
