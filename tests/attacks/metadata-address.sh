#!/bin/bash
# class: network
# tries: reach the cloud's metadata service by its address and by names
# must: not answer
# needs: curl

for address in 169.254.169.254 '[fd00:ec2::254]' '[::ffff:169.254.169.254]' metadata.google.internal 169.254.169.254.nip.io 100.100.100.200 2852039166 0251.0376.0251.0376; do
  for proxy in "" "--noproxy *"; do
    code=$(timeout 10 curl -s -m 8 -g -o /dev/null -w '%{http_code}' $proxy -H 'Metadata-Flavor: Google' "http://$address/latest/meta-data/" 2>/dev/null)
    case "$code" in 000|400|403|502|"") ;; *) echo "$address answered $code"; exit 7 ;; esac
  done
done
echo "no answer"
