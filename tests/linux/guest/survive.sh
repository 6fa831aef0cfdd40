# A file system and fio on it at work, until the harness has done its worst; neither may see an error.
# Announces each pass, and each loss of the connection that the kernel reports.
. "$PAIRVOL_GUEST/lib.sh"
login plain node.session.timeo.replacement_timeout=120 \
    node.conn[0].timeo.noop_out_interval=2 node.conn[0].timeo.noop_out_timeout=3
disk=$(disk_of plain 0)
mkfs.ext4 -q -F "$disk"
mkdir -p /m
mount "$disk" /m
dmesg --follow-new | while read -r line; do
    case $line in *'detected conn error'*) announce lost ;; esac
done &

pass=0
until told; do
    pass=$((pass + 1))
    fio --name=pass --directory=/m --rw=randwrite --bs=4k-64k --size=8M --direct=1 --ioengine=libaio --iodepth=8 \
        --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=$pass --output=/tmp/fio.out || {
        cat /tmp/fio.out
        fail "fio saw an error"
    }
    dd if=/dev/urandom of="/m/file$((pass % 8))" bs=64k count=16 conv=fsync status=none
    announce pass $pass
done
hear_order # how often the connection was lost, at least
lost=$(kernel_log | grep -c 'detected conn error' || true)
say "$pass passes, connection lost $lost times"
[ "$lost" -ge "$order" ] || fail "it was to be lost $order times"
(cd /m && sha256sum file*) >/tmp/sums
umount /m
e2fsck -fn "$disk"
mount -o ro "$disk" /m
(cd /m && sha256sum --quiet --check /tmp/sums) || fail "a file is not what it was"
umount /m
no_errors_in_kernel_log
logout plain
