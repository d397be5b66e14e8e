#!/bin/bash
# class: kernel
# tries: learn of the kernel and the machine: its log, its memory, addresses, keys
# must: be masked

dmesg 2>/dev/null | grep -q . && { echo "the kernel's log is readable"; exit 7; }
for file in /proc/kcore /proc/kmsg /proc/keys /proc/timer_list /proc/slabinfo /proc/vmallocinfo /sys/kernel/debug /sys/kernel/tracing /sys/firmware/dmi/tables/DMI /sys/class/dmi/id/product_uuid; do
  head -c 1 "$file" 2>/dev/null | grep -q . && { echo "read $file"; exit 7; }
done
awk '$1 !~ /^0+$/ {found=1} END {exit !found}' /proc/kallsyms 2>/dev/null && { echo "kernel addresses"; exit 7; }
echo "masked"
