#!/bin/bash
# class: network
# tries: reach private addresses of the operator's network
# must: not answer
# needs: curl

for address in 10.0.0.1 172.16.0.1 192.168.0.1 192.168.1.1 172.17.0.1 100.64.0.1 '[fe80::1]' '[fd00::1]'; do
  for port in 80 22; do
    if timeout 3 bash -c "exec 3<>/dev/tcp/${address//[\[\]]/}/$port" 2>/dev/null; then echo "connected to $address:$port"; exit 7; fi
  done
  code=$(timeout 10 curl -s -m 8 -g -o /dev/null -w '%{http_code}' "http://$address/" 2>/dev/null)
  case "$code" in 000|400|403|502|"") ;; *) echo "$address answered $code"; exit 7 ;; esac
done
echo "no answer"
