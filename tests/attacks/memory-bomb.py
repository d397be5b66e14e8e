#!/usr/bin/env python3
# class: exhaustion
# tries: take memory until the machine has none
# must: be ended by the limit of memory, and leave neighbours alone
# needs: python3
# ends: the call ends with an error that names the limit; the next call works, and the neighbour's meanwhile
# tells: memory limit of | MemoryError
# bare: would take this machine down where nothing limits it

held = []
while True:
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    held.append(block)
