# The guest is up: a kernel of its own, with the modules of an iSCSI initiator, and the array can be reached.
. "$PAIRVOL_GUEST/lib.sh"
uname -a
for module in iscsi_tcp sd_mod sg dm_mod; do
    test -d "/sys/module/$module" || fail "module $module is not loaded"
done
start_iscsid
expect '^iscsiadm version' iscsiadm --version
test "$(hostname)" = "$PAIRVOL_NAME"
