#!/bin/bash
# class: exhaustion
# tries: fill the disk with one large file and with many
# must: be bounded
# ends: the call may be stopped with an error that names the limit; after the files are deleted the next call works
# tells: disk limit of | stopped after
# bare: would take this machine down where nothing limits it

limit=$((${ATTACK_DISK_MIB:-512} * 2))
written=0
for n in $(seq 1 64); do
  head -c $((limit / 32))M /dev/zero > "./attack-fill-$n" 2>/dev/null || break
  written=$((written + limit / 32))
  sleep 0.3
done
rm -f ./attack-fill-*
[ $written -ge $limit ] && { echo "wrote $written MiB, the limit is ${ATTACK_DISK_MIB:-512}"; exit 7; }
echo "stopped after $written MiB"
