#!/usr/bin/env python3
# class: exhaustion
# tries: open files until the machine has no more
# must: be stopped by the limit of open files
# needs: python3
# bare: would take this machine down where nothing limits it

import os, sys
opened = 0
try:
    while opened < 2_000_000:
        os.open("/dev/null", os.O_RDONLY)
        opened += 1
except OSError as fault:
    print(f"stopped after {opened}: {fault}")
    sys.exit(0)
print(f"{opened} files are open")
sys.exit(7)
