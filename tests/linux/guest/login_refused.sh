# The login of INITIATOR with the settings in SETTINGS fails for REASON, and there is no session.
. "$PAIRVOL_GUEST/lib.sh"
# shellcheck disable=SC2086
prepare_login "$INITIATOR" $SETTINGS
expect_refused "$REASON" node "$INITIATOR" --login
session_of "$INITIATOR" && fail "there is a session all the same"
say "refused"
