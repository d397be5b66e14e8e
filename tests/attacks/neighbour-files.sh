#!/bin/bash
# class: files
# tries: find the secret that another session wrote into its workspace, its home and /tmp
# must: be found nowhere in the whole tree

# The class keeps the pattern from matching this very text.
if timeout 60 grep -rsIl --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr 'CANARY-[N]EIGHBOUR' / 2>/dev/null | grep .; then exit 7; fi
for path in "$ATTACK_DATA"/*/*/workspace "$ATTACK_DATA"/sessions /proc/*/root/workspace /proc/*/cwd; do
  if grep -rsl 'CANARY-[N]EIGHBOUR' "$path" 2>/dev/null | grep .; then exit 7; fi
done
echo "not found"
