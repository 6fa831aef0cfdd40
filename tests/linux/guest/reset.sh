# sg_raw RESERVE(6) (SPC-2 §7.21) keeps the other initiator out until sg_reset: a reset of the unit, of the target.
# Each leaves a disk that works.
. "$PAIRVOL_GUEST/lib.sh"
login one
login two
first=$(disk_of one 0)
second=$(disk_of two 0)

reserve() { sg_raw "$1" 16 00 00 00 00 00; }
release() { sg_raw "$1" 17 00 00 00 00 00; }
# The next command after a reset reports it: UNIT ATTENTION, SAM-5 §5.14.
hear_of_reset() { until_true sg_turs "$1"; }

hear_of_reset "$first"
hear_of_reset "$second"
expect 'SCSI Status: Good' reserve "$first"
expect_refused '[Rr]eservation [Cc]onflict' reserve "$second"
expect 'SCSI Status: Good' release "$first"
expect 'SCSI Status: Good' reserve "$second"
expect 'SCSI Status: Good' release "$second"

for how in device target; do
    say "reset of the $how"
    expect 'SCSI Status: Good' reserve "$first"
    expect_refused '[Rr]eservation [Cc]onflict' reserve "$second"
    sg_reset --no-esc "--$how" "$second"
    hear_of_reset "$first"
    hear_of_reset "$second"
    expect 'SCSI Status: Good' reserve "$second"
    expect 'SCSI Status: Good' release "$second"
    dd if="$first" of=/dev/null bs=64k count=16 iflag=direct status=none
done
no_errors_in_kernel_log
logout one
logout two
