# ext4 with files; their checksums stay in the guest, so that nothing on the disk vouches for itself.
. "$PAIRVOL_GUEST/lib.sh"
login plain
disk=$(disk_of plain "$LUN")
mkfs.ext4 -q -F "$disk"
mkdir -p /m
mount "$disk" /m
echo "$MARKER" >/m/marked
for number in $(seq 40); do
    dd if=/dev/urandom of="/m/file$number" bs=64k count=$((1 + number % 8)) status=none
done
mkdir /m/folder
cp /m/file1 /m/folder/copy
mv /m/file2 /m/folder/moved
rm /m/file3
(cd /m && find . -type f -exec sha256sum {} +) >/tmp/sums
expect_equal 41 "$(wc -l </tmp/sums)" "files"
umount /m
e2fsck -fn "$disk"
logout plain
no_errors_in_kernel_log
