#!/usr/bin/env python3
# class: network
# tries: open raw, packet, vsock and audit sockets
# must: be refused
# needs: python3

import socket, sys
for name, arguments in [("raw IPv4", (socket.AF_INET, socket.SOCK_RAW, 1)), ("raw IPv6", (socket.AF_INET6, socket.SOCK_RAW, 58)),
                        ("packet", (socket.AF_PACKET, socket.SOCK_RAW, 0)), ("vsock", (40, socket.SOCK_STREAM, 0)),
                        ("audit", (socket.AF_NETLINK, socket.SOCK_RAW, 9)), ("AF_ALG", (38, 5, 0)), ("bluetooth", (31, 3, 1)), ("xdp", (44, 3, 0))]:
    try:
        socket.socket(*arguments)
        print(f"a {name} socket opens")
        sys.exit(7)
    except OSError as fault:
        last = fault
print("refused:", last)
