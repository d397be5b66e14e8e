#!/bin/bash
# class: network
# tries: find an interface or a route that leads out
# must: find loopback alone

interfaces=$(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | grep -v '^lo$')
[ -z "$interfaces" ] || { echo "interfaces:" $interfaces; exit 7; }
[ "$(tail -n +2 /proc/net/route | wc -l)" = 0 ] || { echo "routes:"; cat /proc/net/route; exit 7; }
echo "loopback alone"
