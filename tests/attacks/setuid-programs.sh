#!/bin/bash
# class: files
# tries: become root by set-user-id programs: the image's own, and one made here
# must: keep this user

me=$(id -u)
cp /bin/bash ./attack-shell && chmod 4755 ./attack-shell
[ "$(./attack-shell -p -c 'id -u')" = "$me" ] || { echo "a shell made here runs as somebody else"; exit 7; }
[ "$me" = 0 ] && exit 0
for program in su sudo mount passwd newuidmap pkexec chsh; do
  path=$(command -v $program) || continue
  case $program in
    su) timeout 5 su -c id < /dev/null 2>/dev/null | grep -q 'uid=0' && { echo "su gave root"; exit 7; } ;;
    sudo) timeout 5 sudo -n id 2>/dev/null | grep -q 'uid=0' && { echo "sudo gave root"; exit 7; } ;;
  esac
done
grep -q '^NoNewPrivs:.*1' /proc/self/status || { echo "new privileges can be gained"; exit 7; }
echo "still $me"
