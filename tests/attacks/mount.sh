#!/bin/bash
# class: kernel
# tries: mount, remount, unmount and pivot, by the old calls and the new
# must: be refused

mkdir -p ./attack-mount
for words in "-t tmpfs none ./attack-mount" "--bind / ./attack-mount" "-o remount,rw /" "-t proc none ./attack-mount" "-t sysfs none ./attack-mount" "-t cgroup2 none ./attack-mount" "-t overlay -o lowerdir=/usr none ./attack-mount"; do
  if mount $words 2>/dev/null; then echo "mount $words works"; exit 7; fi
done
umount -l /proc 2>/dev/null && { echo "unmounted /proc"; exit 7; }
chroot . /bin/true 2>/dev/null && { echo "chroot works"; exit 7; }
pivot_root . . 2>/dev/null && { echo "pivot_root works"; exit 7; }
echo "refused"
