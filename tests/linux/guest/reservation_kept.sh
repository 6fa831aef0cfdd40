# Registrations made with APTPL (SPC-4 §5.13.5), and the reservation, hold when the array comes back from a kill -9.
. "$PAIRVOL_GUEST/lib.sh"
login one
login two
first=$(disk_of one 0)
second=$(disk_of two 0)
write_block() { dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct status=none; }

sg_persist --out --register --param-aptpl --param-sark=0xaaa "$first"
sg_persist --out --reserve --param-rk=0xaaa --prout-type=5 "$first"
announce reserved
hear_order
# It is a new array for both sessions, which they find out by themselves.
until_true sg_turs "$first"
until_true sg_turs "$second"
expect '0xaaa' sg_persist --in --read-keys "$second"
expect 'type: Write Exclusive, registrants only' sg_persist --in --read-reservation "$second"
expect 'iqn.2026-11.org.example:one' sg_persist --in --read-full-status "$second"
write_block "$first"
expect_refused 'Input/output error|Invalid exchange' write_block "$second"
sg_persist --out --clear --param-rk=0xaaa "$first"
expect 'NO registered reservation keys' sg_persist --in --read-keys "$second"
kernel_log | grep -q 'detected conn error' || fail "the array was not gone"
logout one
logout two
