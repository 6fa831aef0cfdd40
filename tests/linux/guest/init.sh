#!/bin/sh
# The guest's first process. The root is the host's, read-only; over it come the layer of unpacked packages and a tmpfs
# for what is written, and that becomes the root. Then network, kernel modules' folder, and the agent.
# PAIRVOL_* come from the kernel command line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8

if [ "$1" != in-new-root ]; then
    mount -n -t tmpfs -o size=75% tmpfs /mnt
    mkdir /mnt/upper /mnt/work /mnt/root /mnt/modules /mnt/layer
    mount -n -t hostfs none /mnt/modules -o "$PAIRVOL_MODULES"
    mount -n -t hostfs none /mnt/layer -o "$PAIRVOL_LAYER"
    # On a host without kmod it is in the layer, where the loader does not look yet.
    ln -s /mnt/layer/usr/bin/kmod /mnt/insmod
    PATH=$PATH:/mnt LD_LIBRARY_PATH=/mnt/layer/usr/lib/x86_64-linux-gnu \
        insmod "/mnt/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko"
    mount -n -t overlay -o lowerdir=/mnt/layer:/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root || exit 1
    cd /mnt/root && mkdir -p old
    pivot_root . old # a chroot would not do: the kernel runs modprobe from its own root
    exec chroot . /bin/sh "/old$PAIRVOL_GUEST/init.sh" in-new-root <dev/null >dev/console 2>&1
fi

mount -n -t proc proc /proc
mount -n -t sysfs sysfs /sys
mount -n -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm
mount -n -t devpts devpts /dev/pts
for folder in /dev/shm /run /tmp; do # sockets and locks do not work on the host's files
    mount -n -t tmpfs tmpfs $folder
done
chmod 1777 /tmp /dev/shm
mkdir -p /run/lock /share /lib/modules
mount -n -t hostfs none /share -o "$PAIRVOL_SHARE"
mount -n -t hostfs none /lib/modules -o "$PAIRVOL_MODULES"
# The project and its Python must be found at their own paths, also where a tmpfs hides them now.
for folder in "$PAIRVOL_ROOT" "$PAIRVOL_VENV" "$PAIRVOL_PYTHON"; do
    [ ! -e "$folder" ] || continue
    mkdir -p "$folder"
    mount -n -t hostfs none "$folder" -o "$folder"
done
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/mounts /etc/mtab
ldconfig

hostname "$PAIRVOL_NAME"
ip link set lo up
ip address add "$PAIRVOL_ADDRESS" dev vec0 && ip link set vec0 up
for module in iscsi_tcp sd_mod sg dm-mod; do
    modprobe $module
done

/bin/bash "$PAIRVOL_GUEST/agent.sh"
echo "$PAIRVOL_NAME: agent ended with status $?"
sync
echo o >/proc/sysrq-trigger
read -r _ </dev/console # the first process must not end before the power is off
