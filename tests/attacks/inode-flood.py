#!/usr/bin/env python3
# class: exhaustion
# tries: make files without end
# must: be bounded by time or number, and be removable
# needs: python3
# ends: the next call works; deleting the session removes them
# bare: would take this machine down where nothing limits it

import os, sys, time
os.makedirs("attack-inodes", exist_ok=True)
until = time.monotonic() + 8
count = 0
try:
    while time.monotonic() < until:
        os.close(os.open(f"attack-inodes/{count}", os.O_CREAT | os.O_WRONLY))
        count += 1
except OSError as fault:
    print(f"stopped after {count}: {fault}")
print(count, "files")
