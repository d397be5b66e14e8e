#!/bin/bash
# class: processes
# tries: end or stop the first process of the room
# must: be refused, or be ignored
# inside: only in loopd's rooms does the first process run the loop

for signal in STOP TERM HUP USR1 SEGV KILL; do
  if kill -$signal 1 2>/dev/null; then
    sleep 0.2
    [ -d /proc/1 ] && grep -q '^State:.*T' /proc/1/status && { echo "process 1 is stopped"; exit 7; }
    # Where loop and tools are one user it may be sent, and the kernel keeps it from the first process.
    owner=$(stat -c %u /proc/1 2>/dev/null)
    [ -z "$owner" ] || [ "$(id -u)" = "$owner" ] || { echo "a signal to another user's process was accepted"; exit 7; }
  fi
done
echo "it lives"
