# The unit grows while the initiator is logged in; after a rescan the kernel has the new size and can use all of it.
. "$PAIRVOL_GUEST/lib.sh"
login plain
disk=$(disk_of plain "$LUN")
sectors() { cat "/sys/block/$(basename "$disk")/size"; }
grown() { [ "$(sectors)" = "$SECTORS_AFTER" ]; }
rescan() {
    iscsiadm -m session --rescan >/dev/null
    grown
}
expect_equal "$SECTORS_BEFORE" "$(sectors)" "size in sectors before"
announce ready
hear_order
until_true rescan
say "the kernel has the new size"
expect "Last LBA=$((SECTORS_AFTER - 1)) " sg_readcap --long "$disk"
head -c 4096 /dev/urandom >/tmp/end
dd if=/tmp/end of="$disk" bs=4096 seek=$((SECTORS_AFTER / 8 - 1)) oflag=direct status=none
dd if="$disk" of=/tmp/read bs=4096 skip=$((SECTORS_AFTER / 8 - 1)) iflag=direct status=none
cmp /tmp/end /tmp/read
kernel_log | grep -i 'capacity\|size' || true
no_errors_in_kernel_log
logout plain
