#!/bin/bash
# class: network
# tries: reach a service that listens on the host's loopback, by every name and address
# must: not answer
# needs: curl

port=$ATTACK_HOST_PORT
for host in 127.0.0.1 localhost 127.0.0.2 127.1.2.3 0.0.0.0 '[::1]' '[::ffff:127.0.0.1]' localtest.me 127.0.0.1.nip.io host.docker.internal 2130706433 0x7f000001; do
  for proxy in "" "--noproxy *"; do
    if timeout 10 curl -s -m 8 -g $proxy "http://$host:$port/" 2>/dev/null | grep -q 'CANARY-[H]OST'; then echo "reached it as $host"; exit 7; fi
  done
done
echo "no answer"
