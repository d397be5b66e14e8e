#!/usr/bin/env python3
# class: kernel
# tries: set the clock, the host name, and the machine's state
# must: be refused
# needs: python3

# Each would change nothing if it got through: the time and the name are set to what they are.
import ctypes, os, socket, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    result = libc.syscall(*[ctypes.c_long(n) if isinstance(n, int) else n for n in numbers])
    return result, os.strerror(ctypes.get_errno()) if result < 0 else ""
now, name = struct.pack("ll", int(time.time()), 0), socket.gethostname().encode()
for what, numbers in [("settimeofday", (164, ctypes.create_string_buffer(now), 0)),
                 ("clock_settime", (227, 0, ctypes.create_string_buffer(now))),
                 ("sethostname", (170, ctypes.c_char_p(name), len(name))),
                 ("reboot", (169, 0xfee1dead, 672274793, 0, 0)),
                 ("swapon", (167, ctypes.c_char_p(b"/x"), 0)),
                 ("acct", (163, 0)),
                 ("syslog", (103, 3, ctypes.create_string_buffer(64), 64)),
                 ("adjtimex set", (159, ctypes.create_string_buffer(bytes([1,0,0,0]) + bytes(204))))]:
    result, why = call(*numbers)
    if result >= 0:
        print(f"{what} works")
        sys.exit(7)
print("refused:", why)
