# LVM on two disks: a logical volume over both, a file system on it, grown while mounted; all of it found again.
. "$PAIRVOL_GUEST/lib.sh"
# Without udev LVM makes its nodes itself, and looks for devices in /dev.
cat >/etc/lvm/lvm.conf <<'CONF'
devices { obtain_device_list_from_udev = 0 use_devicesfile = 0 scan = [ "/dev" ] filter = [ "a|^/dev/sd|", "r|.*|" ] }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
CONF
login plain
disks="$(disk_of plain 0) $(disk_of plain 2)"
wipefs --all --quiet $disks
pvcreate --quiet $disks
vgcreate --quiet pairvol $disks
lvcreate --quiet --yes --wipesignatures n --name disk --size 256M pairvol
mkfs.ext4 -q /dev/pairvol/disk
mkdir -p /m
mount /dev/pairvol/disk /m
dd if=/dev/urandom of=/m/file bs=1M count=24 status=none
sum=$(sha256sum </m/file)
lvextend --quiet --resizefs --extents +100%FREE pairvol/disk
expect_equal 2 "$(pvs --noheadings -o pv_free --units b | grep -c ' 0B')" "disks that are full"
dd if=/dev/urandom of=/m/second bs=1M count=8 conv=fsync status=none
second=$(sha256sum </m/second)
umount /m
vgchange --quiet -an pairvol
logout plain

login plain
disk_of plain 0
disk_of plain 2
vgchange --quiet -ay pairvol
e2fsck -fn /dev/pairvol/disk
mount /dev/pairvol/disk /m
expect_equal "$sum" "$(sha256sum </m/file)" "the file after a new login"
expect_equal "$second" "$(sha256sum </m/second)" "the second file after a new login"
umount /m
vgchange --quiet -an pairvol
vgremove --quiet --force pairvol
no_errors_in_kernel_log
logout plain
