#!/bin/bash
# class: exhaustion
# tries: take memory by files in /tmp and /dev/shm
# must: be bounded by their size and by the limit of memory
# ends: the next call works
# bare: would take this machine down where nothing limits it

for place in /tmp /dev/shm; do
  timeout 60 head -c 64G /dev/zero > $place/attack-full 2>/dev/null && { echo "64 GB in $place"; exit 7; }
  rm -f $place/attack-full
done
echo "full before the machine was"
