#!/bin/bash
# class: kernel
# tries: make namespaces in which it is root, by clone, unshare, clone3 and setns
# must: be refused

for flags in --user "--user --map-root-user" --mount --pid --net --ipc --uts --cgroup "--user --map-root-user --mount --net"; do
  if unshare $flags true 2>/dev/null; then echo "unshare $flags works"; exit 7; fi
done
for kind in mnt net pid user; do
  if nsenter --target 1 --$( [ $kind = mnt ] && echo mount || echo $kind ) true 2>/dev/null; then echo "entered the $kind namespace of process 1"; exit 7; fi
done
echo "refused"
