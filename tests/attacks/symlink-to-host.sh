#!/bin/bash
# class: files
# tries: reach the host through symbolic links in the workspace, absolute and climbing
# must: lead to the room's own tree and no further

cd "$(mktemp -d "$PWD/links-XXXX")" || exit 2
ln -s /etc/shadow shadow; ln -s "$ATTACK_HOST_FILE" secret; ln -s ../../../../../../../../../.. up; ln -s /proc/1/root host
for path in shadow secret "up$ATTACK_HOST_FILE" "up/etc/shadow" "host$ATTACK_HOST_FILE" host/etc/shadow; do
  if head -c 1 "$path" 2>/dev/null | grep -q .; then echo "read $path"; exit 7; fi
done
echo "every link ends in the room"
