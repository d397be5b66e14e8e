#!/bin/bash
# class: files
# tries: read files of the host by their paths: a planted secret, password hashes, keys, home directories
# must: not be there, or not be readable

for path in "$ATTACK_HOST_FILE" /etc/shadow /etc/ssh/ssh_host_rsa_key /root/.bashrc /root/.ssh/id_rsa /var/lib/dpkg/../../log/dpkg.log "$ATTACK_DATA"/loopd.sqlite "$ATTACK_DATA"/master.key; do
  if head -c 1 "$path" 2>/dev/null | grep -q .; then echo "read $path"; exit 7; fi
done
ls -d /home/* /root/* /var/log/* /boot/* 2>/dev/null | grep -v '^/home/agent$' | grep . && { echo "listed the host's directories"; exit 7; }
echo "none of them is there"
