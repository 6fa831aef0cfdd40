# SendTargets discovery (RFC 7143 §4.3, Appendix C) lists the target with every portal and its portal group: FOUND.
. "$PAIRVOL_GUEST/lib.sh"
start_iscsid
make_initiator plain
iscsiadm -m discovery -t st -p "$PORTAL" -I plain | tee /tmp/discovered
expect_equal "$FOUND" "$(sort /tmp/discovered | paste -sd';')" "what discovery found"
