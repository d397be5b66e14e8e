#!/bin/bash
# class: files
# tries: make a hard link to a program of the system image and change it through the link
# must: not be possible: another file system, or read-only

for victim in /usr/bin/env /etc/passwd /etc/hosts; do
  if ln "$victim" "$PWD/linked" 2>/dev/null && (exec 3>> "$PWD/linked") 2>/dev/null; then echo "$victim can be changed"; exit 7; fi
  rm -f "$PWD/linked"
done
echo "refused"
