# shellcheck shell=sh
# What the scripts of this folder share. Each is run as: SCRIPT check | apply | undo
#
#   check   exit 0 when the host is as it should be, 1 when not; changes nothing
#   apply   changes it, now and for the next boot, and keeps what was there before; a second apply changes nothing more
#   undo    brings back what apply found
#
# TUNING_ROOT=DIR works below DIR instead of /, and runs no system command: the tests use it, and it shows what would be written.
set -eu

ROOT=${TUNING_ROOT:-}
SELF=$(basename "$0")
# What apply found, one file a knob.
SAVED="$ROOT/var/lib/sequencer-tuning/$SELF"

say() { printf '%s: %s\n' "$SELF" "$*"; }

die() {
    printf '%s: %s\n' "$SELF" "$*" >&2
    exit 2
}

# Whether system commands (sysctl, udevadm) are run: not in a sandbox.
is_real() { [ -z "$ROOT" ]; }

need_root() {
    if is_real && [ "$(id -u)" != 0 ]; then
        die "must run as root: sudo $0 $*"
    fi
}

# value FILE: its content, or nothing.
value() {
    if [ -r "$1" ]; then
        cat "$1"
    fi
}

# kept FILE: where its earlier content lies.
kept() { printf '%s%s' "$SAVED" "$(printf '%s' "${1#"$ROOT"}" | tr '/ ' '__')"; }

# keep FILE: remembers its content (or that it is not there) unless that was done by an earlier apply.
keep() {
    keep_to=$(kept "$1")
    mkdir -p "$(dirname "$SAVED")"
    if [ -e "$keep_to" ] || [ -e "$keep_to.absent" ]; then
        return 0
    fi
    if [ -e "$1" ]; then
        # Not cp: files of /sys and /proc say that they are empty or 4,096 bytes long.
        cat "$1" >"$keep_to.new"
        mv "$keep_to.new" "$keep_to"
    else
        : >"$keep_to.absent"
    fi
}

# put FILE TEXT: keeps what is there and writes the text; fails loudly.
put() {
    keep "$1"
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "$2" >"$1" || die "cannot write $1"
}

# restore FILE: what keep remembered. Nothing was kept: nothing is done.
restore() {
    restore_from=$(kept "$1")
    if [ -e "$restore_from" ]; then
        cat "$restore_from" >"$1" || die "cannot write $1"
        rm "$restore_from"
    elif [ -e "$restore_from.absent" ]; then
        rm -f "$1" "$restore_from.absent"
    fi
}

# chosen TEXT: the word in brackets of `always [madvise] never`, or the text itself.
chosen() { printf '%s' "$1" | sed 's/.*\[\(.*\)\].*/\1/'; }

# dispatch VERB: runs do_check, do_apply or do_undo.
dispatch() {
    verb=${1:-}
    [ $# -gt 0 ] && shift
    case $verb in
    check) do_check "$@" ;;
    apply)
        need_root apply
        do_apply "$@"
        do_check "$@"
        ;;
    undo)
        need_root undo
        do_undo "$@"
        say "as before"
        ;;
    *)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
        printf 'usage: %s check | apply | undo\n' "$0" >&2
        exit 2
        ;;
    esac
}
