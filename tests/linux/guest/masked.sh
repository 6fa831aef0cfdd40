# An initiator that may use one unit only, and only read it, sees no other, and cannot write.
. "$PAIRVOL_GUEST/lib.sh"
login masked
disk=$(disk_of masked "$LUN")
expect_equal 1 "$(compgen -G "$(session_of masked)/device/target*/*:*:*:*/block/sd*" | wc -l)" "disks"
expect_equal 1 "$(cat "/sys/block/$(basename "$disk")/ro")" "write protection"
dd if="$disk" of=/dev/null bs=64k count=1 iflag=direct status=none
expect_refused '[Dd]ata protect|Write protected' sg_raw --send=4096 --infile=/dev/zero "$(sg_of "$disk")" \
    2a 00 00 00 00 00 00 00 01 00
logout masked
