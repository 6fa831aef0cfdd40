# sg_persist by two initiators with one disk: registration, reservation, conflict, preemption, clearing (SPC-4 §5.13).
. "$PAIRVOL_GUEST/lib.sh"
login one
login two
first=$(disk_of one 0)
second=$(disk_of two 0)
write_block() { dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct status=none; }

expect 'Persist Through Power Loss Capable\(PTPL_C\): 1' sg_persist --in --report-capabilities "$first"
expect 'Write Exclusive, registrants only: 1' sg_persist --in --report-capabilities "$first"
expect 'NO registered reservation keys' sg_persist --in --read-keys "$first"

sg_persist --out --register --param-sark=0xaaa "$first"
sg_persist --out --register --param-sark=0xbbb "$second"
expect '2 registered reservation keys follow' sg_persist --in --read-keys "$first"
sg_persist --out --register --param-rk=0xbbb --param-sark=0 "$second"
expect '1 registered reservation key follows' sg_persist --in --read-keys "$second"

sg_persist --out --reserve --param-rk=0xaaa --prout-type=5 "$first"
expect 'type: Write Exclusive, registrants only' sg_persist --in --read-reservation "$second"
expect 'iqn.2026-11.org.example:one' sg_persist --in --read-full-status "$second"
write_block "$first"
expect_refused 'Input/output error|Invalid exchange' write_block "$second"
expect_refused '[Rr]eservation [Cc]onflict' sg_raw --outfile=/dev/null --send=512 --infile=/dev/zero "$second" \
    2a 00 00 00 00 00 00 00 01 00
dd if="$second" of=/dev/null bs=4096 count=1 iflag=direct status=none # reading is free to all
expect_refused '[Rr]eservation [Cc]onflict' sg_persist --out --reserve --param-rk=0xbbb --prout-type=5 "$second"

sg_persist --out --register --param-sark=0xbbb "$second"
write_block "$second" # a registrant
sg_persist --out --preempt --param-rk=0xbbb --param-sark=0xaaa --prout-type=5 "$second"
expect 'Key=0xbbb' sg_persist --in --read-reservation "$second"
sg_turs "$first" || true # it hears of its lost registration
expect_refused 'Input/output error|Invalid exchange' write_block "$first"
sg_persist --out --release --param-rk=0xbbb --prout-type=5 "$second"
expect 'NO reservation held' sg_persist --in --read-reservation "$first"
write_block "$first"
sg_persist --out --clear --param-rk=0xbbb "$second"
expect 'NO registered reservation keys' sg_persist --in --read-keys "$first"
logout one
logout two
