# Sourced by tests/bench: the two servers, each in a cgroup of its own where one can be made, and what they have used.

# ---- cages: what a server and its children use, also those that have ended

cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
cages=()
# Runs a command as the shell's child; where cgroups cannot be made, without one.
caged() { # NAME COMMAND…
  local cage=$cgroups/${scratch##*/}.$1; shift
  if [ -n "$cgroups" ] && mkdir -p "$cage" 2>/dev/null; then
    cages+=("$cage")
    sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' - "$cage" "$@" &
  else
    "$@" &
  fi
}
release_cages() { local cage; for cage in "${cages[@]}"; do rmdir "$cage" 2>/dev/null || true; done; }
tree() { # PID: it and what descends from it
  local all=$1 young=$1
  while young=$(pgrep -d, -P "$young"); do all+=,$young; done
  echo "${all//,/ }"
}
cpu_of() { # NAME PID: microseconds of CPU so far
  local stat=$cgroups/${scratch##*/}.$1/cpu.stat pid
  if [ -n "$cgroups" ] && [ -e "$stat" ]; then
    awk '$1 == "usage_usec" { print $2 }' "$stat"
  else
    # what has ended and was waited for is in its parent's figures
    for pid in $(tree "$2"); do sed 's/^.*) //' "/proc/$pid/stat" 2>/dev/null || true; done |
      awk -v hz="$(getconf CLK_TCK)" '{ t += $12 + $13 + $14 + $15 } END { printf "%d\n", t * 1000000 / hz }'
  fi
}
memory_of() { # PID: kB that it and its descendants alone keep, shared pages divided among those that share them
  local pid
  for pid in $(tree "$1"); do cat "/proc/$pid/smaps_rollup" 2>/dev/null || true; done | awk '$1 == "Pss:" { sum += $2 } END { print sum }'
}
await() { # PID ADDR
  local deadline=$((SECONDS + 60))
  until (: <"/dev/tcp/${2%:*}/${2##*:}") 2>/dev/null; do
    kill -0 "$1" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] || fail "nobody listens on $2"
    sleep 0.05
  done
}

# ---- the peer

# Main builds; of `pushes` no other branch does.
hook() { # APP COMPRESSION
  cat <<HOOK
#!/bin/sh
set -e
while read -r old new ref; do
HOOK
  [ "$1" != pushes ] || echo '  [ "$ref" = refs/heads/main ] || continue'
  cat <<HOOK
  context=\$(mktemp -d)
  git archive "\$new" | tar -x -C "\$context"
  $LEMNOS_TEST_BUILDCTL --addr $LEMNOS_TEST_BUILDKIT_ADDR build --progress=plain --frontend dockerfile.v0 \\
    --local context="\$context" --local dockerfile="\$context" --opt platform=linux/amd64,linux/arm64 \\
    --output "type=image,name=$LEMNOS_TEST_REGISTRY_ADDR/peer/$1:\${ref##*/},push=true,oci-mediatypes=true,compression=$2"
  rm -rf "\$context"
done
HOOK
}

# In a mount namespace where root's shell is sh and its home is empty: bash's start-up files would slow every exec.
# sshd's MaxStartups would drop some of the pushers that come at once.
serve_peer() { # NAME: sets peer_pid and peer_port
  local dir=$scratch/peer
  peer_port=$(free_port)
  sed "s/^ListenAddress$/ListenAddress 127.0.0.1:$peer_port/" "$dir/config" >"$dir/config.$1"
  caged "$1" unshare -m sh -c 'mount --make-rprivate / && mount --bind "$1/passwd" /etc/passwd && exec /usr/sbin/sshd -D -e -f "$2"' - \
    "$dir" "$dir/config.$1" >"$dir/log.$1" 2>&1
  peer_pid=$!
  pids+=("$peer_pid")
  await "$peer_pid" "127.0.0.1:$peer_port"
}
start_peer() {
  local app dir=$scratch/peer
  mkdir -p "$dir/home" /run/sshd
  ssh-keygen -q -t ed25519 -N '' -f "$dir/host"
  cp "$scratch/key.pub" "$dir/keys"
  sed "s|^root:.*|root:x:0:0:root:$dir/home:/bin/sh|" /etc/passwd >"$dir/passwd"
  cat >"$dir/config" <<CONFIG
ListenAddress
HostKey $dir/host
AuthorizedKeysFile $dir/keys
PidFile none
StrictModes no
UsePAM no
PrintMotd no
UseDNS no
PermitRootLogin prohibit-password
PasswordAuthentication no
MaxStartups 1000
CONFIG
  for app in "${apps[@]}"; do
    git init -q --bare -b main "$dir/$app.git"
    git -C "$dir/$app.git" config receive.fsckObjects true
    git -C "$dir/$app.git" config receive.autogc false
    hook "$app" "$(compression "$app")" >"$dir/$app.git/hooks/pre-receive"
    chmod +x "$dir/$app.git/hooks/pre-receive"
  done
  serve_peer peer
  peer_at=ssh://root@127.0.0.1:$peer_port$dir
}

# ---- ours

# Housekeeping waits, as the peer's `git gc` does. As many builds run at once as there are pushers: the peer's hook knows no bound, lemnos
# has four at once unless told otherwise.
serve_ours() { # NAME FLAG…: sets ours_pid, ours_addr and ours_data
  local name=$1 deadline=$((SECONDS + 60)); shift
  ours_data=$scratch/$name
  mkdir -p "$ours_data"
  caged "$name" env LEMNOS_HOUSEKEEPING_SECONDS=86400 LEMNOS_SSH_LIMITS_CONNECTIONS=10000 LEMNOS_CONCURRENT_BUILDS=20 \
    "$lemnos" serve --data "$ours_data" --ssh 127.0.0.1:0 --http 127.0.0.1:0 --builder "$LEMNOS_TEST_BUILDKIT_ADDR" \
    --registry "$LEMNOS_TEST_REGISTRY_ADDR/ours" "$@" >"$ours_data.log" 2>&1
  ours_pid=$!
  pids+=("$ours_pid")
  until [ -e "$ours_data/lemnos.json" ]; do
    kill -0 "$ours_pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] ||
      { tail -n 20 "$ours_data.log" >&2; fail "lemnos serve did not start"; }
    sleep 0.05
  done
  ours_addr=$(sed -n 's/.*"ssh": *"\([^"]*\)".*/\1/p' "$ours_data/lemnos.json" | head -n 1)
  "$lemnos" keys add bench "$scratch/key.pub" --data "$ours_data" >/dev/null
}
start_ours() {
  local app
  serve_ours ours
  for app in "${apps[@]}"; do
    "$lemnos" apps create "$app" --data "$ours_data" >/dev/null
    "$lemnos" apps grant "$app" bench --data "$ours_data" >/dev/null
    "$lemnos" apps set "$app" build-tags=true "compression=$(compression "$app")" --data "$ours_data" >/dev/null
  done
  "$lemnos" apps set builds 'branches=b*' --data "$ours_data" >/dev/null
  ours_at=ssh://git@$ours_addr
}
stop() { # PID: of the last server that was started
  unset 'pids[-1]'
  kill -TERM "$1"
  wait "$1" 2>/dev/null || true
}

commands() {
  echo "    client, both: git push -q builder main   (ssh with KexAlgorithms=curve25519-sha256)"
  [ -n "$peer_only" ] ||
    echo "    ours: LEMNOS_HOUSEKEEPING_SECONDS=86400 LEMNOS_CONCURRENT_BUILDS=20 lemnos serve --builder $LEMNOS_TEST_BUILDKIT_ADDR --registry $LEMNOS_TEST_REGISTRY_ADDR/ours"
  echo "    peer: sshd with MaxStartups 1000, receive.fsckObjects=true, receive.autogc=false, and this pre-receive:"
  hook tiny gzip | sed 's/^/      | /'
  case " ${scenarios[*]} " in *" pushes "*)
    echo "    and this one where branches other than main do not build:"
    hook pushes gzip | sed -n '1,5s/^/      | /p' ;;
  esac
}
