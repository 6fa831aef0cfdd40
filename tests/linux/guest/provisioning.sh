# sg_write_same, sg_unmap, sg_compare_and_write, and what a read says after each.
. "$PAIRVOL_GUEST/lib.sh"
login plain
disk=$(disk_of plain 0)

# blocks LBA COUNT FILE: what is there now
blocks() { dd if="$disk" of="$3" bs=512 skip="$1" count="$2" iflag=direct status=none; }
head -c 512 /dev/urandom >/tmp/one
for _ in $(seq 64); do cat /tmp/one; done >/tmp/many
head -c 32768 /dev/zero >/tmp/zeros

say "WRITE SAME"
for options in --10 --16; do
    sg_write_same $options --lba=1024 --num=64 --in=/tmp/zeros --xferlen=512 "$disk"
    blocks 1024 64 /tmp/read
    cmp /tmp/zeros /tmp/read
    sg_write_same $options --lba=1024 --num=64 --in=/tmp/one --xferlen=512 "$disk"
    blocks 1024 64 /tmp/read
    cmp /tmp/many /tmp/read
done
expect 'mapped' sg_get_lba_status --lba=1024 "$disk"
sg_write_same --16 --unmap --lba=1024 --num=64 --xferlen=512 "$disk"
blocks 1024 64 /tmp/read
cmp /tmp/zeros /tmp/read

say "UNMAP"
dd if=/dev/urandom of="$disk" bs=64k seek=16 count=2 oflag=direct status=none
blocks 2048 128 /tmp/before
sg_unmap --force --lba=2048 --num=128 "$disk"
blocks 2048 128 /tmp/read
cmp -n 65536 /dev/zero /tmp/read
expect 'deallocated' sg_get_lba_status --lba=2048 "$disk"
blocks 2176 128 /tmp/neighbour
cmp -s -n 65536 /dev/zero /tmp/neighbour && fail "UNMAP took the neighbour as well"

say "COMPARE AND WRITE"
sg_write_same --16 --lba=4096 --num=1 --in=/tmp/one --xferlen=512 "$disk"
head -c 512 /dev/urandom >/tmp/new
cat /tmp/one /tmp/new >/tmp/both
sg_compare_and_write --lba=4096 --num=1 --in=/tmp/both --xferlen=1024 "$disk"
blocks 4096 1 /tmp/read
cmp /tmp/new /tmp/read
# A second time the old contents are no longer there: MISCOMPARE, and nothing is written.
expect_refused '[Mm]iscompare' sg_compare_and_write --lba=4096 --num=1 --in=/tmp/both --xferlen=1024 "$disk"
blocks 4096 1 /tmp/read
cmp /tmp/new /tmp/read
no_errors_in_kernel_log
logout plain
