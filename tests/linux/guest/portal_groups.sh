# sg_rtpg (SPC-4 §5.15, §6.37): both portal groups with their ALUA states, the same seen through either of them.
. "$PAIRVOL_GUEST/lib.sh"
for portal in "$PORTAL" "$SECOND_PORTAL"; do
    PORTAL=$portal
    login plain
    disk=$(disk_of plain 0)
    sg_rtpg --decode "$disk" | tee /tmp/groups
    expect_equal 2 "$(grep -c 'target port group id' /tmp/groups)" "target port groups"
    expect_equal "active/optimized active/non optimized" \
        "$(sed -n 's/.*target port group asymmetric access state : 0x0\([01]\).*/\1/p' /tmp/groups |
            sed 's/0/active\/optimized/; s/1/active\/non optimized/' | paste -sd' ')" "their states"
    expect 'target port group identifier|Target port group' sg_vpd --page=di "$disk"
    dd if="$disk" of=/dev/null bs=64k count=1 iflag=direct status=none
    logout plain
done
