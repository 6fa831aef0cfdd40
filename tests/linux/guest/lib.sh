# What every step begins with. A step fails at its first command that fails; its output is its log.
set -Eeuo pipefail
trap 'say "FAILED in line $LINENO: $BASH_COMMAND"' ERR
trap 'leave_nothing $?' EXIT
echo $$ >"/run/step-$STEP.pid"
export DM_DISABLE_UDEV=1 # LVM makes its device nodes itself

NAME_PREFIX=iqn.2026-11.org.example
PATIENCE=60 # seconds; generous, since the machine may be busy

say() { printf '== [%7.2f] %s\n' "$(cut -d' ' -f1 /proc/uptime)" "$*"; }

fail() {
    say "FAIL: $*"
    exit 1
}

# To the harness.
announce() { echo "announce $STEP $*" >/dev/ttyS0; }
# From the harness, as the agent hands it on. Open for writing, too, so that neither end ever waits to open it.
_orders=/run/step-$STEP.orders
mkfifo "$_orders"
exec 4<>"$_orders"
# True when the harness has said something.
told() { read -r -t 0 -u 4; }
# hear_order: wait for what it says; in $order
hear_order() { read -r -t 600 -u 4 order || fail "no order from the harness"; }

# until_true COMMAND...: again and again until it succeeds.
until_true() {
    local give_up=$((SECONDS + PATIENCE))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $give_up ] || fail "not within $PATIENCE s: $*"
        sleep 0.05
    done
}

# expect PATTERN COMMAND...: it must succeed, and a line of its output match the extended regular expression.
expect() {
    local pattern=$1 output
    shift
    echo "+ $*"
    output=$("$@" 2>&1) || fail "status $? from: $* : $output"
    printf '%s\n' "$output"
    grep -Eq -- "$pattern" <<<"$output" || fail "no line with '$pattern' from: $*"
}

# expect_refused PATTERN COMMAND...: it must fail, and say so.
expect_refused() {
    local pattern=$1 output
    shift
    echo "+ $*   (must fail)"
    if output=$("$@" 2>&1); then fail "succeeded, and must not: $* : $output"; fi
    printf '%s\n' "$output"
    grep -Eq -- "$pattern" <<<"$output" || fail "failed, but no line with '$pattern' from: $*"
}

# expect_equal WANTED FOUND WHAT
expect_equal() { [ "$1" = "$2" ] || fail "$3: '$2' instead of '$1'"; }

# ---- sessions -------------------------------------------------------------------------------------------------------

start_iscsid() {
    mkdir -p /etc/iscsi /run/lock/iscsi
    [ -e /run/iscsid.pid ] && kill -0 "$(cat /run/iscsid.pid)" 2>/dev/null && return
    echo "InitiatorName=$NAME_PREFIX:$(hostname)" >/etc/iscsi/initiatorname.iscsi
    iscsid --pid=/run/iscsid.pid
    until_true test -s /run/iscsid.pid
}

# Initiator names are those of iscsiadm's interfaces, so that one guest can be several initiators.
make_initiator() {
    iscsiadm -m iface -I "$1" >/dev/null 2>&1 && return
    iscsiadm -m iface -I "$1" --op new >/dev/null
    iscsiadm -m iface -I "$1" --op update -n iface.transport_name -v tcp \
        -n iface.initiatorname -v "$NAME_PREFIX:$1" >/dev/null
}

# node NAME WORDS...: iscsiadm on the record of that initiator for $TARGET at $PORTAL
node() {
    local name=$1
    shift
    iscsiadm -m node -T "$TARGET" -p "$PORTAL" -I "$name" "$@"
}

# prepare_login NAME [SETTING=VALUE]...: a record, and what differs in it from iscsiadm's defaults
prepare_login() {
    local name=$1 setting changes=()
    shift
    for setting in node.startup=manual node.session.initial_login_retry_max=1 node.conn[0].timeo.login_timeout=30 "$@"; do
        changes+=(-n "${setting%%=*}" -v "${setting#*=}")
    done
    start_iscsid
    make_initiator "$name"
    node "$name" --op new >/dev/null
    node "$name" --op update "${changes[@]}" >/dev/null
}

# login NAME [SETTING=VALUE]...: a session of the initiator with $TARGET at $PORTAL
login() {
    prepare_login "$@"
    node "$1" --login
}

logout() { node "$1" --logout; }

# session_of NAME: the folder of its session in sysfs
session_of() {
    local session
    for session in /sys/class/iscsi_session/session*; do
        [ "$(cat "$session/ifacename" 2>/dev/null)" = "$1" ] && echo "$session" && return
    done
    return 1
}

connection_of() {
    local session
    session=$(session_of "$1")
    echo "/sys/class/iscsi_connection/connection${session##*session}:0"
}

_disk_folder() { compgen -G "$(session_of "$1")/device/target*/*:*:*:$2/block/sd*"; }
_disk_ready() { [ "$(cat "$(_disk_folder "$1" "$2")/size")" -gt 0 ]; }

# disk_of NAME LUN: its block device, as soon as it is there
disk_of() {
    until_true _disk_ready "$1" "$2"
    echo "/dev/$(basename "$(_disk_folder "$1" "$2")")"
}

# sg_of DEVICE: the SCSI generic node of a block device
sg_of() { echo "/dev/$(ls "/sys/block/${1#/dev/}/device/scsi_generic")"; }

drop_caches() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}

# kernel_log: what the kernel said since the step began
echo "step $STEP begins" >/dev/kmsg
kernel_log() { dmesg | sed "1,/step $STEP begins/d"; }

no_errors_in_kernel_log() {
    local errors
    errors=$(kernel_log | grep -E 'I/O error|EXT4-fs error|EXT4-fs warning|Aborting journal|Remounting filesystem' || true)
    [ -z "$errors" ] || fail "the kernel saw errors: $errors"
}

# At the end of every step: no file system, no volume group, no session stays.
leave_nothing() {
    local status=$1
    trap - ERR EXIT
    set +e
    rm -f "$_orders"
    [ "$status" = 0 ] || { say "status $status; the kernel's last words:" && kernel_log | tail -n 25; }
    jobs -p | xargs -r kill 2>/dev/null
    mountpoint -q /m && umount /m
    [ -e /dev/mapper/pairvol-disk ] && vgchange -an pairvol >/dev/null 2>&1
    compgen -G '/sys/class/iscsi_session/session*' >/dev/null && iscsiadm -m node --logoutall=all >/dev/null 2>&1
    iscsiadm -m node --op delete >/dev/null 2>&1
    exit "$status"
}
