#!/bin/bash
# class: processes
# tries: speak for the loop: write into the first process's descriptors, connect to its socket
# must: be refused
# inside: only in loopd's rooms does the first process run the loop

for fd in /proc/1/fd/*; do
  if (exec 3> "$fd") 2>/dev/null; then
    case "$(readlink "$fd" 2>/dev/null)" in /dev/null|/dev/pts/*|/dev/tty) ;; *) echo "opened $fd: $(readlink "$fd")"; exit 7 ;; esac
  fi
done
for socket in /run/loopd/* /run/loopd/*/* "$ATTACK_DATA"/rooms/*/cell "$ATTACK_DATA"/rooms/*/outlet/*; do
  [ -S "$socket" ] || continue
  case "$socket" in *cell) echo "the loop's socket is in sight: $socket"; exit 7 ;; esac
done
tail -n +2 /proc/net/unix 2>/dev/null | awk '{print $8}' | grep -E 'cell|loopd-' | grep . && { echo "the loop's socket has a name here"; exit 7; }
echo "nothing to write to"
