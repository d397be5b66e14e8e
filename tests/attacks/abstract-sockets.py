#!/usr/bin/env python3
# class: network
# tries: connect to unix sockets of the host that have no file: abstract names
# must: not be in sight
# needs: python3

import socket, sys
for name in [line.split()[-1] for line in open("/proc/net/unix").read().splitlines()[1:] if "@" in line]:
    try:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect("\0" + name[1:])
        print("connected to", name)
        sys.exit(7)
    except OSError:
        pass
try:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect("\0loopd-attack-canary")
    print("reached the host's abstract socket")
    sys.exit(7)
except OSError as fault:
    print("not in sight:", fault)
