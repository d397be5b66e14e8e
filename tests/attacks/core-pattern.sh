#!/bin/bash
# class: kernel
# tries: have the kernel start a program on the host: core_pattern, modprobe, hotplug, binfmt_misc
# must: be read-only

for file in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hotplug /proc/sys/fs/binfmt_misc/register /sys/kernel/uevent_helper /proc/sys/kernel/poweroff_cmd; do
  [ -e "$file" ] || continue
  if (exec 3> "$file") 2>/dev/null; then echo "$file opens for writing"; exit 7; fi
done
for file in /proc/sys/vm/drop_caches /proc/sysrq-trigger /proc/sys/kernel/panic /proc/sys/net/ipv4/ip_forward /proc/sys/vm/overcommit_memory; do
  # Covered by /dev/null, which takes what is written and does nothing.
  [ -c "$file" ] && continue
  if (exec 3> "$file") 2>/dev/null; then echo "$file opens for writing"; exit 7; fi
done
echo "read-only"
