#!/usr/bin/env python3
# class: exhaustion
# tries: open connections to its way out, and hold them
# must: be bounded, and leave the loop and the neighbours alone
# needs: python3
# ends: the next call works, and the neighbour's meanwhile
# bare: would take this machine down where nothing limits it

import socket
held = []
for port in [3128, 53] * 4000:
    try:
        peer = socket.socket()
        peer.settimeout(0.5)
        peer.connect(("127.0.0.1", port))
        peer.send(b"CONNECT ")
        held.append(peer)
    except OSError:
        pass
print(len(held), "connections were taken")
