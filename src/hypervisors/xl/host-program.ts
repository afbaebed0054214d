import { DOMAIN_CHANGES } from "./domain-program.ts";
import { DOMAIN_CONSOLES, DOMAIN_READS } from "./domain-reads-program.ts";
import { BEGAN_WORD, HOST_STATUS } from "./host-status.ts";

/** First line of stdout of a change and of a console. */
export const BEGAN = `${BEGAN_WORD}\n`;

/**
 * The fixed program that runs on the host for every call: `sh -c <this> drover VERB ARGUMENT…`. Nothing is ever put
 * into it; what it works on are its arguments. It needs sh, flock and timeout, and is all that stands between two
 * changes of one thing, or between a host's owner and the one before:
 *
 * - A change holds the lock of what it changes until it has ended, though nobody may listen any more. What it leaves
 *   behind (xl's daemons) does not inherit the lock.
 * - A change that holds its lock goes on only where the fence's value is its own. Whoever makes the value greater then
 *   waits for the locks that are held: what comes later to a lock sees the new value.
 * - A change whose caller went away while it waited does not begin: the line that says so finds nobody.
 * - What a change writes goes to files first, so that a connection that breaks does not kill it by a broken pipe;
 *   what it says beside its result is of interest only where it fails.
 */
export const HOST_PROGRAM = `
LC_ALL=C PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH
umask 077

stop() { # STATUS WORD…
  code=$1
  shift
  printf 'drover: %s\\n' "$*" >&2
  exit "$code"
}

# Writes a file, if it is there. A program of its own would take longer than all that it writes.
show() {
  [ -r "$1" ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do printf '%s\\n' "$line"; done <"$1"
}

# Ends as the program before did; statuses from 240 on are our own.
pass_on() {
  code=$?
  [ "$code" -lt 240 ] || code=239
  exit "$code"
}

# Waits until the lock of NAME is ours and the host is too. A lock's file is removed while it is held, so that it tells
# what runs, and one that was opened before that is not the lock any more.
begin() { # NAME LABEL
  [ -d "$dir/locks" ] || stop ${HOST_STATUS.fenced} 'this installation has never been let in to the host'
  lock=$dir/locks/$1.lock
  while :; do
    exec 9>>"$lock"
    flock -w "$wait" -x 9 || stop ${HOST_STATUS.busy} "this has not ended on the host: $(holder)"
    [ ! "$lock" -ef "/proc/$$/fd/9" ] || break
  done
  printf '%s %s\\n' "$fence" "$2" >"$lock"
  read -r owner <"$dir/fence" && [ "$owner" = "$fence" ] || {
    rm -f "$lock"
    stop ${HOST_STATUS.fenced} 'the host belongs to a later owner'
  }
  printf '${BEGAN_WORD}\\n' || exit 1
  exec 3>&1 4>&2 >"$lock.out" 2>"$lock.err"
  trap finish EXIT
}

# What the change is that holds a lock.
holder() {
  read -r label <"$lock" && printf '%s' "\${label#* }"
}

finish() {
  code=$?
  trap - EXIT
  exec >&3 2>&4 5<"$lock.out" 6<"$lock.err"
  rm -f "$lock.out" "$lock.err" "$lock"
  exec 9>&-
  [ ! -s /proc/$$/fd/5 ] || cat <&5
  [ "$code" = 0 ] || cat <&6 >&2
  exit "$code"
}

# Runs a program of a change for at most $limit seconds, without the locks.
run() {
  timeout -k 10 "$limit" "$@" 3>&- 4>&- 7>&- 9>&-
}

# Lets an owner in, and waits until all that owners before it have begun has ended. The directories are made.
fence() { # VALUE DIRECTORY…
  value=$1
  shift
  for directory in "$dir/domains" "$dir/locks" "$@"; do
    [ -d "$directory" ] || mkdir -p "$directory" || exit 1
  done
  set -- "$value"
  exec 8>>"$dir/fence.lock"
  flock -w "$wait" -x 8 || stop ${HOST_STATUS.busy} 'another owner is being let in to the host'
  owner=''
  [ ! -e "$dir/fence" ] || read -r owner <"$dir/fence"
  if [ "$owner" != "$1" ]; then
    ! expr "x$owner" '>' "x$1" >/dev/null || stop ${HOST_STATUS.fenced} 'the host belongs to a later owner'
    printf '%s\\n' "$1" >"$dir/fence.part" && sync "$dir/fence.part" && mv "$dir/fence.part" "$dir/fence" || exit 1
  fi
  for lock in "$dir"/locks/*.lock; do
    label=''
    [ ! -e "$lock" ] || read -r label <"$lock"
    case $label in '' | "$1 "*) continue ;; esac
    (exec 9<"$lock" && flock -w "$wait" -s 9) 2>/dev/null || [ ! -e "$lock" ] ||
      stop ${HOST_STATUS.busy} "this has not ended on the host, and an earlier owner began it: $(holder)"
  done
}
${DOMAIN_CHANGES}${DOMAIN_READS}${DOMAIN_CONSOLES}
verb=$1 dir=$2
shift 2
case $verb in
  read) # DIRECTORY LIMIT PROGRAM ARGUMENT…
    limit=$1
    shift
    timeout -k 10 "$limit" "$@"
    pass_on ;;
  fence) # DIRECTORY WAIT VALUE DIRECTORY…
    wait=$1
    shift
    fence "$@" ;;
  change) # DIRECTORY WAIT LIMIT FENCE LOCK LABEL PROGRAM ARGUMENT…
    wait=$1 limit=$2 fence=$3
    begin "$4" "$5"
    shift 5
    run "$@"
    pass_on ;;
  domain) # DIRECTORY WAIT LIMIT FENCE CHANGE UUID ARGUMENT…
    wait=$1 limit=$2 fence=$3 change=$4 uuid=$5
    shift 5
    home=$dir/domains/$uuid
    [ "$change" != off ] || break_save
    begin "$uuid" "the $change of domain $uuid"
    "change_$change" "$@" ;;
  tell) # DIRECTORY LIMIT WHAT ARGUMENT…
    limit=$1 what=$2
    shift 2
    "tell_$what" "$@" ;;
  console) # DIRECTORY LIMIT UUID FORCE
    limit=$1 uuid=$2 home=$dir/domains/$2
    console "$3" ;;
  watch) # DIRECTORY; ends with its stdin
    exec 3<&0
    (cat <&3 >/dev/null; kill $$) >/dev/null 2>&1 &
    exec xenstore-watch @introduceDomain @releaseDomain 3<&- ;;
esac
`;
