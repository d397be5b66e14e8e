#!/usr/bin/env python3
# class: kernel
# tries: make a user namespace by clone3, whose flags a filter cannot see
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
class Args(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in "flags pidfd child_tid parent_tid exit_signal stack stack_size tls".split()]
for name, flag in [("user", 0x10000000), ("mount", 0x00020000), ("net", 0x40000000), ("pid", 0x20000000)]:
    args = Args(flags=flag, exit_signal=17)
    result, why = call(435, ctypes.byref(args), ctypes.sizeof(args))
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
        print(f"made a {name} namespace by clone3")
        sys.exit(7)
print("refused:", why)
