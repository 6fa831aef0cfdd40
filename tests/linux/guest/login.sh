# Login as INITIATOR with the settings in SETTINGS, a megabyte there and back, logout.
. "$PAIRVOL_GUEST/lib.sh"
# shellcheck disable=SC2086
login "$INITIATOR" $SETTINGS
disk=$(disk_of "$INITIATOR" 0)
say "logged in: $disk"

connection=$(connection_of "$INITIATOR")
expect_equal "$HEADER_DIGEST" "$(cat "$connection/header_digest")" "HeaderDigest"
expect_equal "$DATA_DIGEST" "$(cat "$connection/data_digest")" "DataDigest"
session=$(session_of "$INITIATOR")
expect_equal "$NAME_PREFIX:$INITIATOR" "$(cat "$session/initiatorname")" "InitiatorName"
expect_equal 1 "$(cat "$session/tpgt")" "TargetPortalGroupTag"
expect_equal LOGGED_IN "$(cat "$session/state")" "state"

dd if=/dev/urandom of=/tmp/written bs=1M count=1 status=none
dd if=/tmp/written of="$disk" bs=128k oflag=direct conv=fsync status=none
drop_caches
dd if="$disk" of=/tmp/read bs=128k count=8 iflag=direct status=none
cmp /tmp/written /tmp/read || fail "read something else than was written"

logout "$INITIATOR"
[ ! -e "$disk" ] || fail "$disk is still there after the logout"
no_errors_in_kernel_log
