#!/bin/bash
# What a program in a room can see of its walls. Printed as it is, but for what differs from machine to machine; the suite compares it
# with `root.txt` and `user.txt` beside this file, for a loopd that root started and for one that an ordinary user started.

echo "# who"
id | sed 's/ groups=.*65534.*/ groups=…/'
awk '{print "uid map:", ($1 < 65536 ? $1 : "…"), "→ …", ($3 < 65536 ? $3 : "…")}' /proc/self/uid_map
cat /proc/self/setgroups | sed 's/^/setgroups: /'
echo "# powers"
grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\t ' ' '
echo "# first process"
stat -c 'owner %u' /proc/1 2>/dev/null || echo hidden
readlink /proc/1/exe > /dev/null 2>&1 && echo "its program is visible" || echo "its program is hidden"
echo "# processes"
for p in /proc/[0-9]*; do tr '\0' ' ' < $p/cmdline 2>/dev/null | cut -d' ' -f1; done | sed 's|.*/||' | grep . | sort | uniq -c | awk '{print $2}' | grep -v -x -e bash -e sort -e uniq -e awk -e sed -e cut -e tr -e grep
echo "# mounts"
awk '{split($6, o, ","); ro = o[1]; sec = ""; for (i in o) if (o[i] ~ /^(nosuid|nodev|noexec)$/) s[o[i]] = 1;
      line = $5; for (i = 7; i <= NF; i++) if ($i == "-") kind = $(i + 1);
      if (kind !~ /^(tmpfs|proc|devpts|devtmpfs|overlay|mqueue|cgroup.*|sysfs|fuse.*)$/) kind = "disk";
      printf "%s %s %s%s%s%s\n", line, kind, ro, ("nosuid" in s ? " nosuid" : ""), ("nodev" in s ? " nodev" : ""), ("noexec" in s ? " noexec" : ""); delete s}' /proc/self/mountinfo |
  grep -v -E '^/(usr|bin|sbin|lib|lib32|lib64|libx32|etc/(alternatives|ssl/certs|ca-certificates|pki|java))' | sort
echo "# devices"
ls /dev | tr '\n' ' '; echo
echo "# writable in /proc and /sys"
find /proc/sys /sys -type f -writable 2>/dev/null | head -20
for file in /proc/sysrq-trigger /proc/kcore /proc/kmsg /proc/keys /proc/timer_list; do [ -s "$file" ] && echo "$file has content"; done
echo "# writable directories"
for d in / /bin /etc /home /home/agent /mnt /mnt/memory /mnt/session/outputs /mnt/session/uploads /opt /root /run /srv /sys /tmp /usr /var /var/tmp /workspace /dev /dev/shm; do [ -d $d ] && [ -w $d ] && echo "$d"; done
echo "# network"
tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '
awk 'NR > 1 && $4 == "0A" {split($2, a, ":"); print "tcp listens on port 0x" a[2]}' /proc/net/tcp | sort
awk 'NR > 1 {split($2, a, ":"); print "udp on port 0x" a[2]}' /proc/net/udp | sort
echo "# environment"
env | cut -d= -f1 | grep -v -x -e _ -e SHLVL -e PWD -e OLDPWD | sort | tr '\n' ' '; echo
echo "# limits"
ulimit -c -f -n | sed 's/^/ulimit: /'
