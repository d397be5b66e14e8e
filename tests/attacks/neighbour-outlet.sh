#!/bin/bash
# class: network
# tries: use another session's way out: its socket, its proxy, its ports
# must: not be in sight

for socket in $(find / -xdev -type s 2>/dev/null; ls "$ATTACK_DATA"/rooms/*/outlet/* 2>/dev/null); do
  case "$socket" in "$ATTACK_DATA"/*) echo "in sight: $socket"; exit 7 ;; esac
done
own=$(id -u)
for fd in /proc/[0-9]*/fd/*; do
  case "$(readlink "$fd" 2>/dev/null)" in */rooms/*/outlet*) echo "a descriptor: $fd"; exit 7 ;; esac
done
timeout 3 bash -c "exec 3<>/dev/tcp/127.0.0.1/$ATTACK_NEIGHBOUR_PORT && cat <&3" 2>/dev/null | grep -q 'CANARY-[N]EIGHBOUR' && { echo "the neighbour's port answers"; exit 7; }
echo "not in sight"
