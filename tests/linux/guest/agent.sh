# Runs what the harness says over the serial line, one line per order, each quoted as for a shell:
#   run NUMBER LOG SCRIPT [VARIABLE=VALUE]...   tell NUMBER WORDS...   kill NUMBER   off
# and answers: ready, announce NUMBER WORDS, end NUMBER STATUS.
exec 3<>/dev/ttyS0
stty raw -echo <&3

run_step() {
    local number=$1 log=$2 script=$3
    shift 3
    env STEP="$number" "$@" setsid --wait bash "$PAIRVOL_GUEST/$script" </dev/null >"/share/$log" 2>&1 3>&-
    echo "end $number $?" >&3
}

echo ready >&3
while read -r line <&3; do
    eval "order=($line)"
    case "${order[0]}" in
        run) run_step "${order[@]:1}" & ;;
        tell) [ -p "/run/step-${order[1]}.orders" ] && echo "${order[*]:2}" >"/run/step-${order[1]}.orders" ;;
        kill)
            rm -f "/run/step-${order[1]}.orders"
            kill -KILL -- "-$(cat "/run/step-${order[1]}.pid")"
            ;;
        off) break ;;
    esac
done
