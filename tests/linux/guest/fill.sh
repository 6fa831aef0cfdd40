# A part of the disk gets contents.
. "$PAIRVOL_GUEST/lib.sh"
login plain
dd if=/dev/urandom of="$(disk_of plain 0)" bs=1M count="$MEBIBYTES" oflag=direct conv=fsync status=none
logout plain
