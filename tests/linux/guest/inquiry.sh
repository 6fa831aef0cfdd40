# What the units say of themselves, to sg3-utils and to the kernel.
. "$PAIRVOL_GUEST/lib.sh"
login plain
disk=$(disk_of plain 0)

expect 'Vendor identification: PAIRVOL' sg_inq "$disk"
expect 'PDT=0 .*' sg_inq "$disk"
expect '^Supported VPD pages' sg_vpd --page=sv "$disk"
expect 'Unit serial number: [[:graph:]]+' sg_vpd --page=sn "$disk"
sg_vpd --page=di "$disk" | tee /tmp/identification
grep -q 'NAA' /tmp/identification || fail "no NAA designator"
grep -q "$TARGET,t,0x0001" /tmp/identification || fail "no name of the target port"
expect 'Maximum compare and write length: [1-9]' sg_vpd --page=bl "$disk"
expect 'Maximum unmap LBA count: [1-9]' sg_vpd --page=bl "$disk"
expect 'medium rotation|Nominal rotation rate|Non-rotating' sg_vpd --page=bdc "$disk"
expect 'Unmap command supported \(LBPU\): 1' sg_vpd --page=lbpv "$disk"
expect 'Provisioning type: 2 .*thin' sg_vpd --page=lbpv "$disk"

expect 'Last LBA=1048575 .*Number of logical blocks=1048576' sg_readcap --long "$disk"
expect 'Logical block provisioning: lbpme=1, lbprz=1' sg_readcap --long "$disk"
expect 'Logical block length=4096 bytes' sg_readcap --long "$(disk_of plain 1)"
expect_equal 4096 "$(cat "/sys/block/$(basename "$(disk_of plain 1)")/queue/logical_block_size")" "kernel's block size"
expect_equal 1048576 "$(cat "/sys/block/$(basename "$disk")/size")" "kernel's size in sectors"
expect_equal unmap "$(cat "/sys/block/$(basename "$disk")"/device/scsi_disk/*/provisioning_mode)" "provisioning mode"

expect_equal "$LUNS" "$(sg_luns --decode "$disk" | grep -c 'Peripheral device\|Flat space')" "units in REPORT LUNS"
expect 'Read\(16\)' sg_opcodes "$disk"
expect 'Compare and write' sg_opcodes "$disk"
expect 'Logical unit reset' sg_opcodes --tmf "$disk"
expect 'Command is NOT supported' sg_opcodes --opcode=0xe7 "$disk"
sg_turs "$disk"
logout plain
