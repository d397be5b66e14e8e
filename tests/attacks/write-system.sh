#!/bin/bash
# class: files
# tries: change the system image: programs, libraries, configuration
# must: be read-only

for place in /usr/bin /usr/lib /bin /lib /etc /sbin /usr/local/bin /opt; do
  if touch "$place/attack-was-here" 2>/dev/null; then rm -f "$place/attack-was-here"; echo "wrote into $place"; exit 7; fi
done
echo "read-only"
