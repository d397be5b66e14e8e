#!/bin/bash
# class: files
# tries: make device nodes for the disk and for memory, and read the disk
# must: be refused

cd "$PWD" && for node in "disk b 254 0" "mem c 1 1" "kmem c 1 2" "sda b 8 0"; do
  set -- $node
  if mknod "attack-$1" "$2" "$3" "$4" 2>/dev/null; then
    if head -c 512 "attack-$1" 2>/dev/null | grep -q .; then echo "read $1"; exit 7; fi
    rm -f "attack-$1"
  fi
done
for device in /dev/vda /dev/sda /dev/nvme0n1 /dev/mem /dev/kmsg /dev/kvm /dev/fuse /dev/net/tun /dev/loop0 /dev/mapper/control; do
  if [ -e "$device" ] && { head -c 1 "$device" > /dev/null 2>&1 || : 2>/dev/null >> "$device"; }; then echo "opened $device"; exit 7; fi
done
echo "refused"
