#!/bin/bash
# class: processes
# tries: find another session's processes: their environment, arguments and memory
# must: find none

for p in /proc/[0-9]*; do
  for file in environ cmdline maps; do
    tr '\0' '\n' < "$p/$file" 2>/dev/null | grep -q 'CANARY-[N]EIGHBOUR' && { echo "$p/$file"; exit 7; }
  done
done
ipcs -m 2>/dev/null | grep -q 0x0000c0de && { echo "shared memory of another session"; exit 7; }
echo "none"
