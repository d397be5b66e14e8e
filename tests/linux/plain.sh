#!/bin/bash
# The machine of `src/linux.rs` as a plain host: no more than mounts, and then each ignored test of the module that the kernel's command
# line names.
# What the base disk has not comes last.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/data/bin HOME=/root E2E_BINARY=/data/loopd TMPDIR=/data/tmp
mkdir -p /dev/pts /dev/shm /data/bin /data/tmp
/data/busybox --install -s /data/bin
mount -t devpts devpts /dev/pts
for place in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs "$place"; done
chmod 1777 /data/tmp
scenes=$(sed 's/.* scenes=\([^ ]*\).*/\1/' /proc/cmdline)
# As systemd mounts them, by default and with `systemd.unified_cgroup_hierarchy=no`.
inert=nosuid,nodev,noexec
if [ "$scenes" = hybrid ]; then
    mount -t tmpfs -o $inert,mode=755 tmpfs /sys/fs/cgroup
    for controllers in memory pids cpu,cpuacct blkio; do
        mkdir /sys/fs/cgroup/$controllers
        mount -t cgroup -o $inert,$controllers cgroup /sys/fs/cgroup/$controllers
    done
    mkdir /sys/fs/cgroup/unified
    mount -t cgroup2 -o $inert,nsdelegate cgroup2 /sys/fs/cgroup/unified
else
    mount -t cgroup2 -o $inert,nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
fi
ip link set lo up
cd /data
for name in $(./tests --ignored --list --format terse 2>/dev/null | sed -n "s/^\\($scenes::.*\\): test$/\\1/p"); do
    echo "trying: $name"
    ./tests --ignored --exact --nocapture --test-threads 1 "$name" 2>&1
    echo "tried: $name $?"
done
echo "all was tried"
sync
reboot -f
