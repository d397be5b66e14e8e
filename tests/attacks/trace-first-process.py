#!/usr/bin/env python3
# class: processes
# tries: trace, read and write the memory of the first process of the room, which runs the loop
# must: be refused
# needs: python3
# inside: only in loopd's rooms does the first process run the loop

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
for name, numbers in [("ptrace attach", (101, 16, 1, 0, 0)), ("ptrace seize", (101, 0x4206, 1, 0, 0)),
                      ("process_vm_readv", (310, 1, 0, 0, 0, 0, 0)), ("kcmp", (312, os.getpid(), 1, 0, 0, 0))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{name} of process 1 works")
        sys.exit(7)
for path in ["/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/1/syscall", "/proc/1/stack"]:
    try:
        with open(path, "rb") as file:
            if path.endswith("mem") or file.read(1):
                print(f"{path} opens")
                sys.exit(7)
    except OSError as fault:
        last = fault
print("refused:", last)
