# Sourced by the scripts of this project (bash): the project's own virtual environment and the Debian packages.
#
#   . "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"
#   pairvol_venv demo                   # extras of pyproject.toml, separated by commas; may be empty
#   "$PAIRVOL_PYTHON" -m target --help  # the interpreter with everything in it; its bin/ also leads PATH
#
# Sets PAIRVOL_ROOT, and after pairvol_venv PAIRVOL_PYTHON. Obeys, when set:
#   PYTHON          the interpreter (3.11 or later) to make the environment with
#   PAIRVOL_VENV    where the environment lives, instead of <project>/.venv
#   PAIRVOL_NO_APT  1: install no Debian package, even as root
#   CI              true: what could not be installed is an error, not a skip
# Messages go to stderr, so that a script's own output stays clean.

PAIRVOL_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
PAIRVOL_VENV="${PAIRVOL_VENV:-$PAIRVOL_ROOT/.venv}"
# Debian keeps daemons such as mosquitto in sbin, which is not on an ordinary user's PATH.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PAIRVOL_ROOT PAIRVOL_VENV PATH

pairvol_say() { printf 'pairvol: %s\n' "$*" >&2; }

pairvol_in_ci() { [ "${CI:-}" = true ] || [ "${CI:-}" = 1 ]; }

# Prints the first interpreter that runs, is new enough and, if there is such a one, can make virtual environments. The
# distribution's comes first: its profile-guided build is a quarter faster than what version managers compile. A pyenv
# shim exists and yet fails, so each one is tried.
pairvol_base_python() {
    local candidate modules
    for modules in "ensurepip, venv, sys" sys; do
        for candidate in ${PYTHON:-/usr/bin/python3.11 python3.11 /usr/bin/python3 python3 python3.12 python3.13 python3.14}; do
            if "$candidate" -c "import $modules; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1; then
                command -v "$candidate"
                return 0
            fi
        done
    done
    pairvol_say "no Python 3.11 or later found (tried ${PYTHON:-python3.11, python3, …}); set PYTHON=/path/to/it"
    return 1
}

# ---- Debian packages ------------------------------------------------------------------------------------------------

# One line per package: what shows that it is there (a command, or a file pattern), the package, who needs it.
pairvol_debian_table() {
    local headers
    headers="$("$(pairvol_base_python)" -c 'import sysconfig; print(sysconfig.get_path("include"))')"
    cat <<TABLE
iscsi-test-cu libiscsi-bin conformance tests by libiscsi
tgtd tgt benchmarks beside other targets
istgt istgt benchmarks beside other targets
nbdkit nbdkit benchmarks beside an NBD server
nbdcopy libnbd-bin what copies of pairs cost, beside a plain copier
iperf3 iperf3 what copies of pairs cost, beside the bare network
qemu-img qemu-utils tests with QEMU's iSCSI initiator
/usr/lib/*/qemu/block-iscsi.so qemu-block-extra tests with QEMU's iSCSI initiator
mosquitto mosquitto the MQTT broker of the demo and of its tests
ip iproute2 tests with a Linux guest
unshare util-linux tests with a Linux guest
gcc gcc tests with pyscsi over cython-iscsi
/usr/include/string.h libc6-dev tests with pyscsi over cython-iscsi
/usr/include/iscsi/iscsi.h libiscsi-dev tests with pyscsi over cython-iscsi
$headers/Python.h python3-dev tests with pyscsi over cython-iscsi
TABLE
}

# Prints "package<TAB>who needs it" for each package that is missing.
pairvol_missing_debian_packages() {
    local probe package purpose
    while read -r probe package purpose; do
        case "$probe" in
            /*) compgen -G "$probe" >/dev/null && continue ;;
            *) command -v "$probe" >/dev/null && continue ;;
        esac
        printf '%s\t%s\n' "$package" "$purpose"
    done < <(pairvol_debian_table)
}

pairvol_may_apt() {
    [ "$(id -u)" = 0 ] && [ "${PAIRVOL_NO_APT:-0}" != 1 ] && command -v apt-get >/dev/null
}

# Installs without starting any daemon: Debian asks policy-rc.d first, and 101 means "not allowed to".
pairvol_apt_install() (
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    log="$(mktemp)"
    export DEBIAN_FRONTEND=noninteractive
    apt=(apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
    if "${apt[@]}" update </dev/null >"$log" 2>&1 &&
        "${apt[@]}" install --no-install-recommends "$@" </dev/null >>"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 20 "$log" >&2
    rm -f "$log"
    return 1
)

# Installs what is missing of the table where it may, and says what is left out. Fails only with CI=true.
pairvol_debian_packages() {
    local missing packages
    missing="$(pairvol_missing_debian_packages)"
    [ -n "$missing" ] || return 0
    mapfile -t packages < <(cut -f1 <<<"$missing")
    if pairvol_may_apt; then
        pairvol_say "installing Debian packages: ${packages[*]}"
        pairvol_apt_install "${packages[@]}" || pairvol_say "apt-get could not install them (see above)"
        missing="$(pairvol_missing_debian_packages)"
        [ -n "$missing" ] || return 0
        mapfile -t packages < <(cut -f1 <<<"$missing")
    fi
    pairvol_say "missing, and not installed; the tests that need them are skipped:"
    sed 's/^/pairvol:   /; s/\t/ - /' <<<"$missing" >&2
    pairvol_say "to have them: sudo apt-get install ${packages[*]}"
    ! pairvol_in_ci
}

pairvol_can_compile_libiscsi() { command -v gcc >/dev/null && [ -e /usr/include/iscsi/iscsi.h ]; }

# ---- The virtual environment ----------------------------------------------------------------------------------------

# A stamp per extra holds what it was installed from, so that a second run costs two small processes.
pairvol_fingerprint() {
    { printf '%s\n' "$PAIRVOL_ROOT" && cat "$PAIRVOL_ROOT/pyproject.toml"; } | sha256sum | cut -d' ' -f1
}

pairvol_make_venv() {
    local base
    "$PAIRVOL_PYTHON" -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && return 0
    base="$(pairvol_base_python)" || return 1
    if ! "$base" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        # Debian ships Python without them.
        pairvol_may_apt && pairvol_say "installing Debian package python3-venv" && pairvol_apt_install python3-venv
    fi
    pairvol_say "making $PAIRVOL_VENV with $base"
    rm -f "$PAIRVOL_VENV"/.pairvol-stamp-*
    "$base" -m venv --clear "$PAIRVOL_VENV" </dev/null >&2 && return 0
    pairvol_say "$base cannot make a virtual environment; on Debian: apt-get install python3-venv"
    return 1
}

# pairvol_venv EXTRAS: an environment with the project (editable) and these extras; returns non-zero when it cannot.
pairvol_venv() {
    local extras="${1:-}" wanted fingerprint extra
    PAIRVOL_PYTHON="$PAIRVOL_VENV/bin/python"
    fingerprint="$(pairvol_fingerprint)"
    case ":$PATH:" in *":$PAIRVOL_VENV/bin:"*) ;; *) PATH="$PAIRVOL_VENV/bin:$PATH" ;; esac
    export PAIRVOL_PYTHON PATH
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
    wanted="$(pairvol_unstamped "$fingerprint" "$extras")"
    [ -n "$wanted" ] || return 0
    (
        # Two scripts may set up at once: the second waits, and finds the work done. The lock lies beside the
        # environment, since making it clears the directory.
        exec 9>"$PAIRVOL_VENV.lock"
        if command -v flock >/dev/null; then flock 9; fi
        wanted="$(pairvol_unstamped "$fingerprint" "$extras")"
        [ -n "$wanted" ] || exit 0
        pairvol_make_venv || exit 1
        pairvol_say "installing pairvol${extras:+[$extras]} into $PAIRVOL_VENV (once; takes a minute)"
        "$PAIRVOL_PYTHON" -m pip install --quiet --editable "$PAIRVOL_ROOT${extras:+[$extras]}" </dev/null >&2 9>&- || exit 1
        for extra in $wanted; do printf '%s\n' "$fingerprint" >"$PAIRVOL_VENV/.pairvol-stamp-$extra"; done
    ) && return 0
    pairvol_say "the environment $PAIRVOL_VENV could not be set up (see above)"
    return 1
}

# Prints the names among "base" and EXTRAS whose stamp does not match; all of them when the interpreter is gone.
pairvol_unstamped() {
    local fingerprint="$1" name stamp
    for name in base ${2//,/ }; do
        stamp=
        [ -r "$PAIRVOL_VENV/.pairvol-stamp-$name" ] && read -r stamp <"$PAIRVOL_VENV/.pairvol-stamp-$name"
        [ "$stamp" = "$fingerprint" ] && [ -x "$PAIRVOL_PYTHON" ] || printf '%s ' "$name"
    done
}
