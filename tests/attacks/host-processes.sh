#!/bin/bash
# class: processes
# tries: see, read and signal processes of the host
# must: not exist here

pid=$ATTACK_HOST_PID
kill -0 "$pid" 2>/dev/null && grep -qs CANARY "/proc/$pid/environ" && { echo "the server's environment is readable"; exit 7; }
for p in /proc/[0-9]*; do
  tr '\0' '\n' < "$p/environ" 2>/dev/null | grep -q 'CANARY-[H]OST' && { echo "$p has the server's secret"; exit 7; }
  tr '\0' ' ' < "$p/cmdline" 2>/dev/null | grep -qE 'loopd [s]erve|systemd [-]-|sshd[:]' && { echo "$p is the host's"; exit 7; }
done
echo "$(ls -d /proc/[0-9]* | wc -l) processes, all of them ours"
