import { DOMAIN_STATUS } from "./host-status.ts";

/** How long the host itself may take to end a guest or bring it back, in halves of a second. */
const PATIENCE = 60;

/**
 * What the host program does to domains. Every change looks first, inside the lock, at what the domain is now: it is
 * done where its goal is reached, and refused where the state does not allow it.
 *
 * `domain.cfg` begins with what this program must know by itself, as comments: `# name NAME`, `# type TYPE`,
 * `# file PATH`, `# bridge NAME`; and ends in `# end`, so that one that was cut off is known as such.
 */
export const DOMAIN_CHANGES = `
# Sets domid, states and seconds of the domain, as 'xl list -v' shows them; all empty where there is none. One that is
# dying is none, but is told, for it keeps its name. A name may hold spaces: the columns are counted back from the UUID.
look() {
  list=$(run xl list -v </dev/null) || exit
  domid='' states='' seconds='' dying=''
  while read -r line; do
    case $line in *" $uuid "*) set -- \${line%" $uuid "*} ;; *) continue ;; esac
    shift $(($# - 5))
    case $4 in *d) dying=$1 ;; *) domid=$1 states=$4 seconds=$5 ;; esac
  done <<END
$list
END
  [ "$domid" != 0 ] || stop ${DOMAIN_STATUS.foreign} 'this is the host itself'
}

# True while a process of xl's acts for the domain: its daemon, which waits for the guest's end.
served() {
  grep -qszE "^$home/(domain[.]cfg|saved)\\$" /proc/[0-9]*/cmdline
}

# Ends the processes that work with these files of the domain.
end_those() { # PATTERN
  for line in $(grep -slzE "^$home/($1)\\$" /proc/[0-9]*/cmdline); do
    line=\${line#/proc/}
    kill "\${line%/cmdline}"
  done 2>/dev/null
}

# Waits until it is not: a process ends soon after its domain.
unserved() {
  tries=0
  while served && [ "$tries" -lt ${PATIENCE} ]; do
    tries=$((tries + 1))
    sleep 0.2
  done
}

# True while a guest is on its way down or back again: its domain is gone for seconds, then built anew, paused.
passing() {
  case $states in
    ???s[cw]?) false ;;
    '' | ???s??) served ;;
    ??p???) [ "$seconds" = 0.0 ] && ! paused_by_us && served ;;
    *) false ;;
  esac
}

paused_by_us() {
  [ -e "$home/paused" ] && read -r paused <"$home/paused" && [ "$paused" = "$domid" ]
}

# Looks until the domain is on, off or crashed, and not in between.
settle() {
  tries=0
  while look; passing && [ "$tries" -lt ${PATIENCE} ]; do
    tries=$((tries + 1))
    sleep 0.5
  done
}

is_on() {
  case $states in '' | ???s??) false ;; *) true ;; esac
}

must_be_on() {
  settle
  is_on || stop ${DOMAIN_STATUS.invalidState} "the domain is not on, so there is no way to $change it"
}

# The domain is ours: its directory says so.
own() {
  [ ! -e "$home/domain.json" ] || return 0
  not_foreign
  stop ${DOMAIN_STATUS.absent} "the host has no domain $uuid"
}

not_foreign() {
  for other in "\${dir%/*}"/*/domains/"$uuid"/domain.json; do
    [ "$other" = "$home/domain.json" ] || [ ! -e "$other" ] ||
      stop ${DOMAIN_STATUS.foreign} "domain $uuid belongs to another installation, so it is not changed"
  done
  [ ! -e "$home/domain.json" ] || return 0
  look
  [ -z "$domid" ] || stop ${DOMAIN_STATUS.foreign} "domain $uuid carries no mark of ours, so it is not changed"
}

# What the configuration names must be there: xl looks for a bridge that is not for half a minute.
parts() {
  while read -r mark kind value; do
    case "$mark $kind" in
      '# file') [ -e "$value" ] || stop ${DOMAIN_STATUS.missing} "the domain does not start: there is no $value" ;;
      '# bridge') [ -e "/sys/class/net/$value/bridge" ] ||
        stop ${DOMAIN_STATUS.missing} "the domain does not start: there is no bridge $value" ;;
    esac
  done <"$home/domain.cfg"
}

# xl makes no second domain of a name while the first one dies, which takes until its memory is given back.
buried() {
  tries=0
  while [ -n "$dying" ] && [ "$tries" -lt ${PATIENCE} ]; do
    tries=$((tries + 1))
    sleep 0.2
    look
  done
}

# Cuts the power; what was left of the domain is gone afterwards.
destroy() {
  run xl destroy "$domid" </dev/null || {
    code=$?
    look
    [ -z "$domid" ] || exit "$code"
  }
  unserved
  [ ! -e "$home/paused" ] || rm -f "$home/paused"
  look
}

# After a start that failed: nothing half built is left.
undo_start() {
  code=$?
  look
  [ -z "$domid" ] || run xl destroy "$domid" </dev/null
  exit "$code"
}

# What it is created by is kept beside the definition, which can be replaced while it runs.
create() {
  buried
  show "$home/domain.json" >"$home/current.json" || exit 1
  run xl create "$home/domain.cfg" </dev/null || undo_start
}

# The memory is used up before the guest runs on: it must never be brought back to disks that have changed since.
restore() {
  buried
  run xl restore -p "$home/saved" </dev/null || undo_start
  rm -f "$home/saved"
  look
  run xl unpause "$domid" </dev/null || undo_start
}

# A guest with drivers for Xen watches for this; libxl would wait a minute for one that does not.
ask() { # WORD XL-VERB
  if grep -qx '# type hvm' "$home/domain.cfg"; then
    timeout -k 5 15 xl "$2" -F "$domid" </dev/null 3>&- 4>&- 9>&-
    code=$?
    [ "$code" = 124 ] || return "$code"
  else
    run xenstore-write "/local/domain/$domid/control/shutdown" "$1"
  fi
}

change_start() {
  own
  settle
  case $states in
    '') ;;
    ???s??) parts; destroy ;;
    *) ! half_built && exit 0; destroy ;;
  esac
  parts
  if [ -e "$home/saved" ]; then restore; else create; fi
}

# Left by an xl that was killed: paused since ever, and nobody acts for it.
half_built() {
  case $states in
    ??p???) [ "$seconds" = 0.0 ] && ! paused_by_us && ! served ;;
    *) false ;;
  esac
}

change_shutdown() {
  own
  settle
  ! is_on || ask poweroff shutdown
}

change_reboot() {
  own
  must_be_on
  ask reboot reboot
}

change_reset() {
  own
  must_be_on
  parts
  destroy
  create
}

change_pause() {
  own
  must_be_on
  case $states in ??p???) exit 0 ;; esac
  run xl pause "$domid" && printf '%s\\n' "$domid" >"$home/paused"
}

change_resume() {
  own
  must_be_on
  case $states in ??p???) run xl unpause "$domid" || exit ;; esac
  [ ! -e "$home/paused" ] || rm -f "$home/paused"
}

# A guest does its part of being saved, so it must run.
change_save() {
  own
  settle
  [ -n "$states" ] || [ ! -e "$home/saved" ] || exit 0
  must_be_on
  case $states in ??p???) run xl unpause "$domid" || exit; rm -f "$home/paused" ;; esac
  rm -f "$home/saved"
  run xl save "$domid" "$home/saved.part" </dev/null || {
    code=$?
    rm -f "$home/saved.part"
    exit "$code"
  }
  mv "$home/saved.part" "$home/saved"
}

# A save can last for minutes, and what it keeps is thrown away with the power: it is ended instead of waited for.
break_save() {
  read -r owner <"$dir/fence" && [ "$owner" = "$fence" ] || return 0
  end_those 'saved[.]part'
}

# Ends what would bring the guest back: a restart that takes longer than one waits for it.
give_up_restart() {
  end_those 'domain[.]cfg|saved'
  unserved
  look
}

change_off() {
  own
  settle
  ! passing || give_up_restart
  [ -z "$domid" ] || destroy
  [ ! -e "$home/saved" ] && [ ! -e "$home/saved.part" ] || rm -f "$home/saved" "$home/saved.part"
}

# The definition goes last: while it is there, so is the domain.
change_remove() {
  own
  settle
  ! passing || stop ${DOMAIN_STATUS.busy} 'the domain is in the middle of a restart that does not come to its end'
  ! is_on || stop ${DOMAIN_STATUS.invalidState} 'the domain is on; it must be off to be removed'
  [ -z "$domid" ] || destroy
  rm -f "$home"/saved* "$home"/paused "$home"/*.part "$home"/console "$home"/current.json "$home/domain.cfg" \\
    "$home/domain.json" && rmdir "$home"
}

# Definitions of one installation come one after the other, so that no two take one name.
change_define() { # NAME; stdin: domain.json as one line, then domain.cfg
  IFS= read -r json
  last=''
  exec 7>>"$dir/names.lock"
  flock -w "$wait" -x 7 || stop ${DOMAIN_STATUS.busy} 'other definitions have not ended on the host'
  list=''
  not_foreign
  [ -n "$list" ] || look
  for file in "\${dir%/*}"/*/domains/*/domain.cfg; do
    [ -e "$file" ] && [ "$file" != "$home/domain.cfg" ] && read -r line <"$file" && [ "$line" = "# name $1" ] &&
      stop ${DOMAIN_STATUS.alreadyExists} "the host has another domain named '$1': $file"
  done
  while read -r line; do
    case $line in
      *" $uuid "*) ;;
      "$1 "*) stop ${DOMAIN_STATUS.alreadyExists} "the host has another domain named '$1'" ;;
    esac
  done <<END
$list
END
  [ -d "$home" ] || mkdir "$home" || exit 1
  printf '%s\\n' "$json" >"$home/domain.json.part" || exit 1
  while IFS= read -r line; do
    printf '%s\\n' "$line" || exit 1
    last=$line
  done >"$home/domain.cfg.part"
  [ "$last" = '# end' ] || stop ${DOMAIN_STATUS.cut} 'the definition came cut off'
  sync "$home/domain.json.part" "$home/domain.cfg.part"
  mv "$home/domain.cfg.part" "$home/domain.cfg" && mv "$home/domain.json.part" "$home/domain.json"
}
`;
