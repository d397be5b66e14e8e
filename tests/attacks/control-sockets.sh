#!/bin/bash
# class: network
# tries: use control sockets of the host: container engines, service managers, message buses, agents
# must: not be there

for socket in /var/run/docker.sock /run/docker.sock /run/containerd/containerd.sock /run/podman/podman.sock /run/systemd/private /run/systemd/journal/socket /run/dbus/system_bus_socket /run/snapd.socket /tmp/.X11-unix/X0 "$SSH_AUTH_SOCK"; do
  if [ -n "$socket" ] && [ -S "$socket" ]; then echo "there is $socket"; exit 7; fi
done
echo "none is there"
