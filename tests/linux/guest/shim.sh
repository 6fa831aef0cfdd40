# The pair-control software of this host: it listens at LISTEN, on loopback, and goes to ARRAY. It serves until told to end.
. "$PAIRVOL_GUEST/lib.sh"
cd "$PAIRVOL_ROOT"
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
mkfifo "/run/step-$STEP.out"
"$PAIRVOL_VENV/bin/python" -m initiator_shim --listen "$LISTEN" --array "$ARRAY" --name "$PAIRVOL_NAME" \
    >"/run/step-$STEP.out" &
shim=$!
while read -r line; do
    echo "$line"
    [ "$line" != ready ] || break
done <"/run/step-$STEP.out"
[ "$line" = ready ] || fail "the shim does not start"
announce ready
hear_order
kill -TERM $shim
wait $shim || fail "the shim ended with status $?"
rm "/run/step-$STEP.out"
