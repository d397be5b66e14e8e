#!/busybox sh
# The first process of the machine of `src/linux.rs`, until there is a root to stand in: this host's programs, read-only, on a file
# system in memory, and the disk with what is to be tried as /data. A room's root cannot be made where the initramfs is the root.
export PATH=/bin
/busybox mkdir -p /bin /proc /sys /new
/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module"; done
mount -t tmpfs -o mode=755 root /new
cd /new
mkdir -p base data dev etc proc root run sys tmp var
mount -t ext4 -o ro /dev/vda base || exec reboot -f
mount -t ext4 /dev/vdb data || exec reboot -f
for name in usr bin sbin lib lib32 lib64 libx32; do
    if [ -L "base/$name" ]; then
        cp -d "base/$name" "$name"
    elif [ -d "base/$name" ]; then
        mkdir "$name" && mount --bind "base/$name" "$name"
    fi
done
cp -a base/etc/. etc/
cp /busybox data/busybox
for place in proc sys dev; do mount --move "/$place" "$place"; done
exec switch_root /new /data/plain.sh
