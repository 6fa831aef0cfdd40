# RESERVE(6) and RELEASE(6) on the quorum disk, when told to; the answer is announced.
. "$PAIRVOL_GUEST/lib.sh"
login plain
disk=$(disk_of plain 0)
# send OPERATION-CODE: GOOD, CONFLICT, or what else sg_raw's status is. A unit attention is not the answer.
send() {
    local status
    for _ in 1 2 3 4 5; do
        status=0
        sg_raw "$disk" "$1" 00 00 00 00 00 >/tmp/answer 2>&1 || status=$?
        [ $status = 6 ] || break
    done
    cat /tmp/answer
    case $status in
        0) answer=GOOD ;;
        24) answer=CONFLICT ;;
        *) answer=status-$status ;;
    esac
}
announce ready
while hear_order; do
    case $order in
        reserve) send 16 ;;
        release) send 17 ;;
        end) break ;;
    esac
    announce answer $answer
done
logout plain
