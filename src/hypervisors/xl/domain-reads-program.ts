import { BEGAN_WORD, DOMAIN_STATUS } from "./host-status.ts";
import { PVGRUB_PATHS } from "./pvgrub.ts";

/**
 * What the host program tells. The list comes before what acts for domains: one that is not listed, and that nobody
 * acts for afterwards, is off.
 */
export const DOMAIN_READS = `
section() {
  printf '\\n== %s\\n' "$1"
}

# All domains, or what belongs to one.
tell_domains() { # UUID, or '*'
  root=\${dir%/*}
  section list
  timeout -k 5 "$limit" xl list -v || exit
  section served
  grep -szohE "^$dir/domains/[^/]+/(domain[.]cfg|saved)\\$" /proc/[0-9]*/cmdline
  for lock in "$dir"/locks/*.lock; do
    [ ! -e "$lock" ] || (exec 9<"$lock" && flock -n -s 9) || printf '%s\\n' "$lock"
  done 2>/dev/null
  section paused
  for file in "$dir"/domains/$1/paused; do
    [ ! -e "$file" ] || { read -r domid <"$file" && printf '%s:%s\\n' "$file" "$domid"; }
  done
  section saved
  for file in "$root"/*/domains/$1/saved; do [ ! -e "$file" ] || printf '%s\\n' "$file"; done
  for name in domain current; do
    section "$name"
    for file in "$root"/*/domains/$1/$name.json; do
      [ -e "$file" ] || continue
      json=''
      IFS= read -r json <"$file"
      printf '%s:%s\\n' "$file" "$json"
    done
  done
}

# What guests are made of.
tell_resources() { # DIRECTORY…
  section info
  timeout -k 5 "$limit" xl info || exit
  tell_bridges
  section rooms
  for pool; do stat --file-system --format='%S %b %a' -- "$pool" 2>/dev/null || echo; done
  section groups
  # Most hosts have no volume group, and asking for it takes long.
  ! grep -qs LVM2_member /run/udev/data/b* || timeout -k 5 "$limit" vgs --reportformat json --units b --nosuffix \\
    -o vg_name,vg_size,vg_free 2>/dev/null
  return 0
}

tell_bridges() {
  section bridges
  for file in /sys/class/net/*/bridge; do printf '%s\\n' "$file"; done
  section down
  for flags in /sys/class/net/*/flags; do
    read -r bits <"$flags"
    [ "$((bits & 1))" = 1 ] || printf '%s\\n' "$flags"
  done
  section xl.conf
  show /etc/xen/xl.conf
}

# What the host is.
tell_host() {
  section info
  timeout -k 5 "$limit" xl info -n || exit
  tell_bridges
  section uuid
  show /sys/class/dmi/id/product_uuid
  section machine
  show /etc/machine-id
  section cpu
  while read -r line; do
    case $line in 'model name'*) printf '%s\\n' "$line"; break ;; esac
  done </proc/cpuinfo
  section console
  for name in $(grep -slx xenconsoled /proc/[0-9]*/comm); do cat "\${name%comm}cmdline"; done
  section tools
  for file in /usr/lib/xen*/boot/hvmloader /usr/libexec/xen/boot/hvmloader /usr/lib/xen*/bin/qemu-system-i386 \\
    /usr/libexec/xen*/qemu-system-i386 /usr/libexec/xen-qemu-system-i386 /usr/bin/qemu-system-i386 \\
    /usr/bin/qemu-system-x86_64 ${Object.values(PVGRUB_PATHS).join(" ")}; do
    [ ! -e "$file" ] || printf '%s\\n' "$file"
  done
}
`;

/**
 * A guest's consoles. The serial one is one client's at a time, as libvirt keeps it: who has it holds a lock whose file
 * says his process. The terminal is opened by a process that leads no session, for one that does would take it for its
 * own and hang it up when it ends.
 */
export const DOMAIN_CONSOLES = `
running() {
  own
  look
  is_on || stop ${DOMAIN_STATUS.invalidState} 'the domain is off'
}

console() { # FORCE
  running
  exec 9>>"$home/console"
  flock -n -x 9 || take_console "$1"
  case $(grep -x '# type hvm' "$home/domain.cfg") in '') key=console/tty ;; *) key=serial/0/tty ;; esac
  tty=$(run xenstore-read "/local/domain/$domid/$key") && [ -c "$tty" ] && run stty -F "$tty" raw -echo ||
    stop ${DOMAIN_STATUS.invalidState} 'the domain has no serial console'
  sh -c '
    printf "%s\\n" $$ >"$1"
    exec 3<&0 5<>"$2"
    (cat <&3 >&5; kill $$) >/dev/null 2>&1 9>&- &
    printf "${BEGAN_WORD}\\n"
    exec cat <&5 3<&-' drover "$home/console" "$tty"
}

take_console() { # FORCE
  [ "$1" = force ] || stop ${DOMAIN_STATUS.busy} 'somebody else has the console of this domain'
  read -r holder <"$home/console" && [ "/proc/$holder/fd/9" -ef "$home/console" ] && kill "$holder"
  flock -w 5 -x 9 || stop ${DOMAIN_STATUS.busy} 'whoever has the console of this domain does not leave it'
}

# The port of the screen on this host's loopback.
tell_screen() { # UUID
  uuid=$1 home=$dir/domains/$1
  running
  run xenstore-read "/local/domain/$domid/console/vnc-port" 2>/dev/null ||
    stop ${DOMAIN_STATUS.invalidState} 'the domain has no screen'
}
`;
