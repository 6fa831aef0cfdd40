# The files of filesystem_write.sh, in a session of its own: nothing of it is in the page cache.
. "$PAIRVOL_GUEST/lib.sh"
login plain
disk=$(disk_of plain "$LUN")
e2fsck -fn "$disk"
mkdir -p /m
mount -o ro "$disk" /m
(cd /m && sha256sum --quiet --check /tmp/sums) || fail "a file is not what it was"
expect_equal 41 "$(find /m -type f | wc -l)" "files"
umount /m
logout plain
no_errors_in_kernel_log
