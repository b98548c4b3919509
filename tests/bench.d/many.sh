# Sourced by tests/bench: many pushers at once, and many connections that do nothing.

pushers() { case $1 in pushes) echo 100 ;; *) echo 20 ;; esac; }

# A new commit of one file on each of the branches b1, b2, …, in one git process.
grow() { # SIDE SCENARIO ROUND
  local dir=$scratch/clones/$1/$2 n from
  for n in $(seq "$(pushers "$2")"); do
    from=refs/heads/b$n
    [ "$3" -gt 0 ] || from=refs/heads/main
    printf 'commit refs/heads/b%d\ncommitter bench <bench@localhost> now\ndata 6\nchange\nfrom %s^0\n' "$n" "$from"
    printf 'M 644 inline changing\ndata <<END\n%s %s %d %d %s\nEND\n' "$1" "$2" "$3" "$n" "$EPOCHREALTIME"
  done | git -C "$dir" fast-import --quiet --force --date-format=now
}
pusher() { # SIDE SCENARIO N
  local dir=$scratch/clones/$1/$2 log=$scratch/many/$3 from=${EPOCHREALTIME/./}
  git -C "$dir" push -q builder "b$3" >"$log.log" 2>&1 || return
  echo $((${EPOCHREALTIME/./} - from)) >"$log.took"
}
many() { # SIDE SCENARIO: all pushers at once; sets wall, slowest and cpu, in microseconds
  local n children=() server=${1}_pid from before
  rm -rf "$scratch/many"
  mkdir "$scratch/many"
  before=$(cpu_of "$1" "${!server}")
  from=${EPOCHREALTIME/./}
  for n in $(seq "$(pushers "$2")"); do pusher "$1" "$2" "$n" & children+=($!); done
  for n in "${!children[@]}"; do
    wait "${children[n]}" || { tail -n 30 "$scratch/many/$((n + 1)).log" >&2; fail "push of b$((n + 1)) to $1"; }
  done
  wall=$((${EPOCHREALTIME/./} - from))
  # what a server does after its answer is work as well
  sleep 0.5
  cpu=$(($(cpu_of "$1" "${!server}") - before))
  slowest=$(cat "$scratch"/many/*.took | sort -n | awk '{ t[NR] = $1 } END { print t[int(NR * 0.99)] }')
}
measure_many() { # SCENARIO
  local n side order wall slowest cpu
  for n in $(seq 0 "$rounds"); do
    order=("${sides[@]}")
    [ $((n % 2)) -eq 0 ] || order=($(printf '%s\n' "${sides[@]}" | tac))
    for side in "${order[@]}"; do
      grow "$side" "$1" "$n"
      many "$side" "$1"
      [ "$n" -eq 0 ] || printf '%s %s %d\n' "$1" "$side" "$wall" "$1-p99" "$side" "$slowest" "$1-cpu" "$side" "$cpu" >>"$figures"
    done
  done
  report "$1"
  [ "$1" != pushes ] || report "$1-p99"
  report "$1-cpu"
}

# ---- idle

# sshd has two processes for each connection: fewer of them are measured, and the cost of one is what is compared.
idlers() { case $1 in ours) echo 5000 ;; peer) echo 500 ;; esac; }
many_files() { # both ends of so many connections are open files
  local wanted=$(($(idlers ours) + 1000))
  [ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -n)" -ge "$wanted" ] || ulimit -n "$wanted" 2>/dev/null ||
    fail "idle needs $wanted open files" "ulimit -n $wanted, or choose other scenarios"
}
idle() { # ADDR USER PID COUNT: sets memory_before and memory_after, in kB
  local hold=$scratch/hold client deadline=$((SECONDS + 300))
  memory_before=$(memory_of "$3")
  rm -f "$hold" "$hold.out"
  mkfifo "$hold"
  "$lemnos_tools/ssh-idle" "$1" "$2" "$scratch/key" "$4" <"$hold" >"$hold.out" 2>&1 &
  client=$!
  pids+=("$client")
  exec 7>"$hold"
  until grep -qs stand "$hold.out"; do
    kill -0 "$client" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ] || { cat "$hold.out" >&2; fail "the connections to $1"; }
    sleep 0.1
  done
  sleep 2
  memory_after=$(memory_of "$3")
  exec 7>&-
  wait "$client" || { cat "$hold.out" >&2; fail "the connections to $1"; }
  unset 'pids[-1]'
}
measure_idle() {
  local ours_pid ours_addr ours_data peer_pid peer_port n side at user memory_before memory_after last=$((rounds < 3 ? rounds : 3))
  many_files
  echo "    ours: LEMNOS_SSH_LIMITS_CONNECTIONS=10000 lemnos serve …, $(idlers ours) connections; peer: sshd, $(idlers peer) connections"
  for n in $(seq "$last"); do
    for side in "${sides[@]}"; do
      case $side in
        ours) serve_ours "idle$n"; at=$ours_addr user=git ;;
        peer) serve_peer "idle$n"; at=127.0.0.1:$peer_port user=root ;;
      esac
      local server=${side}_pid
      idle "$at" "$user" "${!server}" "$(idlers "$side")"
      stop "${!server}"
      echo "idle $side $memory_before $memory_after kB" >>"$figures"
    done
  done
  for side in "${sides[@]}"; do
    grep "^idle $side " "$figures" | sort -n -k 4 | awk -v side="$side" -v count="$(idlers "$side")" '
      { before[NR] = $3; after[NR] = $4 }
      END { m = int((NR + 1) / 2); printf "    idle       %-5s median %8.1f MB with %d connections, %.1f MB with none: %.1f kB each   (%d rounds)\n",
        side, after[m] / 1024, count, before[m] / 1024, (after[m] - before[m]) / count, NR }'
  done
  [ "${#sides[@]}" -eq 1 ] || for side in "${sides[@]}"; do
    grep "^idle $side " "$figures" | sort -n -k 4 | awk -v count="$(idlers "$side")" '
      { each[NR] = ($4 - $3) / count } END { print each[int((NR + 1) / 2)] }'
  done | awk 'NR == 1 { o = $1 } NR == 2 { printf "    idle       ours/peer %.3f, a connection\n", o / $1 }'
}
