#!/bin/sh
# The first process of a cluster's namespaces: makes the node's world of its own, then only reaps orphans.
#
# Runs in new mount, pid, net, uts and ipc namespaces. All that is mounted, configured or written here ends
# with it. Arguments come by environment: WORK (the cluster's folder), NODE, NODE_IP, HOST_IP.
set -eu

mount --make-rshared / # pods' mounts propagate, inside this namespace only

# The kubelet insists on some settings of the kernel. It finds them as it wants them, and so never writes
# the machine's own.
mkdir -p "$WORK/sys"
for setting in vm/overcommit_memory:1 kernel/panic:10 kernel/panic_on_oops:1; do
    name=${setting%:*}
    file="$WORK/sys/$(echo "$name" | tr / .)"
    echo "${setting#*:}" >"$file"
    mount --bind "$file" "/proc/sys/$name"
done

mount -t tmpfs -o mode=755 tmpfs /run
# Images and pods in memory: on a disk their removal alone takes a minute.
for folder in etcd containerd kubelet; do
    mkdir -p "$WORK/$folder"
    mount -t tmpfs -o mode=711,size=12g tmpfs "$WORK/$folder"
done
mkdir -p "$WORK/varlib/up" "$WORK/varlib/work" "$WORK/log" "$WORK/gpus" "$WORK/claims"
mount -t overlay -o "lowerdir=/var/lib,upperdir=$WORK/varlib/up,workdir=$WORK/varlib/work" overlay /var/lib
mkdir -p /var/lib/kubelet
mount --bind "$WORK/kubelet" /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount --bind "$WORK/log" /var/log
mkdir /run/gpuhub-nvml
mount --bind "$WORK/gpus" /run/gpuhub-nvml
printf '127.0.0.1 localhost\n%s %s\n' "$NODE_IP" "$NODE" >"$WORK/hosts"
: >"$WORK/resolv.conf"
mount --bind "$WORK/hosts" /etc/hosts
mount --bind "$WORK/resolv.conf" /etc/resolv.conf

hostname "$NODE"
ip link set lo up
tries=100
until ip link show eth0 >/dev/null 2>&1; do
    # The other end of eth0 is the machine's; it puts this end here.
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "eth0 did not come" >&2; exit 1; }
    sleep 0.05
done
ip addr add "$NODE_IP/30" dev eth0
ip link set eth0 up
# A Service's address must have a route before it is translated. The machine forwards nothing, so this leads
# to the machine and no further.
ip route add default via "$HOST_IP"
sysctl -qw net.ipv4.ip_forward=1

touch /run/node-is-ready
trap '' INT TERM HUP
while :; do
    sleep 86400 &
    wait $! || true # returns, and reaps, whenever a child ends
done
