# blkdiscard of what fill.sh wrote: zeros from now on; the host sees that the file has shrunk.
. "$PAIRVOL_GUEST/lib.sh"
login plain
disk=$(disk_of plain 0)
dd if="$disk" of=/tmp/read bs=1M count=1 iflag=direct status=none
if cmp -s -n 1048576 /dev/zero /tmp/read; then fail "nothing was there to be discarded"; fi
blkdiscard --length "$((MEBIBYTES << 20))" "$disk"
for megabyte in 0 $((MEBIBYTES / 2)) $((MEBIBYTES - 1)); do
    dd if="$disk" of=/tmp/read bs=1M skip="$megabyte" count=1 iflag=direct status=none
    cmp -n 1048576 /dev/zero /tmp/read
done
no_errors_in_kernel_log
logout plain
