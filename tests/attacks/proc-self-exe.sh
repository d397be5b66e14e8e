#!/bin/bash
# class: files
# tries: overwrite the program of the first process, and of the shell that runs this, through /proc
# must: be refused

for exe in /proc/1/exe /proc/self/exe /proc/$PPID/exe; do
  if (exec 3>> "$exe") 2>/dev/null; then echo "$exe can be written"; exit 7; fi
done
echo "refused"
