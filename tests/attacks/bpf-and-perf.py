#!/usr/bin/env python3
# class: kernel
# tries: load a BPF program, and watch the machine by performance counters
# must: be refused
# needs: python3

import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
for name, numbers in [("bpf map", (321, 0, 0, 0)),
                 ("bpf map create", (321, 0, ctypes.create_string_buffer(bytes([2,0,0,0,4,0,0,0,4,0,0,0,1,0,0,0]) + bytes(56)), 72)),
                 ("perf_event_open", (298, ctypes.create_string_buffer(bytes([1,0,0,0,112,0,0,0]) + bytes(104)), 0, -1, -1, 0))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{name} works")
        sys.exit(7)
print("refused:", why)
