# fio writes at random, deep in the queue, and reads everything again with its checksum.
. "$PAIRVOL_GUEST/lib.sh"
# shellcheck disable=SC2086
login plain $SETTINGS
fio --name=verify --filename="$(disk_of plain "$LUN")" --rw=randwrite --bs=4k-128k --size=48M --direct=1 \
    --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 --do_verify=1 --output=/tmp/fio.out || {
    cat /tmp/fio.out
    fail "fio"
}
grep -E 'READ:|WRITE:' /tmp/fio.out
no_errors_in_kernel_log
logout plain
