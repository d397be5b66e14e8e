#!/bin/bash
# class: kernel
# tries: lift its own limits, or have the kernel start a program, through the cgroup file system
# must: not be in sight

for file in $(find /sys /proc/1 "$ATTACK_DATA" -xdev -name release_agent -o -xdev -name notify_on_release -o -xdev -name memory.max -o -xdev -name memory.limit_in_bytes 2>/dev/null | head -50); do
  if (exec 3>> "$file") 2>/dev/null; then echo "$file opens for writing"; exit 7; fi
done
mkdir -p ./attack-cgroup; mount -t cgroup -o memory none ./attack-cgroup 2>/dev/null && { echo "mounted a cgroup hierarchy"; exit 7; }
(echo 0 > /sys/fs/cgroup/cgroup.procs) 2>/dev/null && { echo "left its cgroup"; exit 7; }
echo "not in sight"
