# Sourced by tests/bench: the BuildKit client alone, `lemnos build` beside `buildctl build`: no git, no SSH, no server.

client_scenarios="context stream solves"
is_client() { case " $client_scenarios " in *" $1 "*) ;; *) return 1 ;; esac; }

client_command() { # SIDE DIR
  case $1 in
    ours) echo "$lemnos" build --builder "$LEMNOS_TEST_BUILDKIT_ADDR" --progress plain --provenance=false "$2" ;;
    peer) echo "$LEMNOS_TEST_BUILDCTL" --addr "$LEMNOS_TEST_BUILDKIT_ADDR" build --progress=plain --frontend dockerfile.v0 \
      --local "context=$2" --local "dockerfile=$2" ;;
  esac
}
# The step sees the whole context and copies nothing of it: what is measured is how it comes over.
make_context() { # SCENARIO DIR
  mkdir -p "$2"
  printf 'FROM busybox\nRUN --mount=type=bind,target=/context test -e /context/changing\n' >"$2/Dockerfile"
  echo 0 >"$2/changing"
  case $1 in
    context) # 100,000 files of 64 bytes in 1,000 directories
      (cd "$2" && head -c 6400000 /dev/urandom >all && for at in $(seq -w 0 999); do mkdir "d$at"; done &&
        split -b 64 -a 5 -d all f && rm all && for at in $(seq -w 0 999); do mv f"$at"?? "d$at/"; done) ;;
    stream) truncate -s 5G "$2/large" ;;
    small) truncate -s 64M "$2/large" ;;
  esac
}
# One build, timed; the highest resident memory of the client as it was last seen running.
built() { # SIDE DIR: sets took (microseconds) and peak (kB)
  local from=${EPOCHREALTIME/./} pid seen
  peak=0
  $(client_command "$1" "$2") >"$scratch/client.log" 2>&1 &
  pid=$!
  if [ -n "${with_memory:-}" ]; then
    while seen=$(awk '$1 == "VmHWM:" { print $2 }' "/proc/$pid/status" 2>/dev/null) && [ -n "$seen" ]; do peak=$seen; sleep 0.02; done
  fi
  wait "$pid" || { tail -n 30 "$scratch/client.log" >&2; fail "the build of $2"; }
  took=$((${EPOCHREALTIME/./} - from))
}
measure_client() { # SCENARIO
  local n side order last=$rounds
  [ "$1" != stream ] || last=$((rounds < 3 ? rounds : 3))
  for side in "${sides[@]}"; do
    make_context "$1" "$scratch/context/$side/$1"
    echo "    $side: $(client_command "$side" "DIR")"
    [ "$1" != stream ] || make_context small "$scratch/context/$side/small"
  done
  [ "$1" != context ] || measure_first
  for n in $(seq 0 "$last"); do
    order=("${sides[@]}")
    [ $((n % 2)) -eq 0 ] || order=($(printf '%s\n' "${sides[@]}" | tac))
    for side in "${order[@]}"; do
      "client_$1" "$side" "$n"
    done
  done
  report "$1"
  case $1 in
    solves) report solves-cpu ;;
    stream) report_peaks ;;
  esac
  rm -rf "$scratch/context"
}
# Everything is new to the daemon: what it had is pruned before, outside of the time. At most five rounds.
measure_first() {
  local n side order took peak last=$((rounds < 5 ? rounds : 5))
  for n in $(seq "$last"); do
    order=("${sides[@]}")
    [ $((n % 2)) -eq 0 ] || order=($(printf '%s\n' "${sides[@]}" | tac))
    for side in "${order[@]}"; do
      "$LEMNOS_TEST_BUILDCTL" --addr "$LEMNOS_TEST_BUILDKIT_ADDR" prune --all >/dev/null
      built "$side" "$scratch/context/$side/context"
      echo "context-first $side $took" >>"$figures"
    done
  done
  report context-first
}
client_context() { # SIDE N: one file of 100,000 has changed
  local took peak
  echo "$1 $2 $EPOCHREALTIME" >"$scratch/context/$1/context/changing"
  built "$1" "$scratch/context/$1/context"
  [ "$2" -eq 0 ] || echo "context $1 $took" >>"$figures"
}
client_stream() { # SIDE N: 5 GB, all of it each time; 64 MB for the memory that a client needs anyway
  local took peak with_memory=yes what
  for what in small stream; do
    printf '%s %s %s' "$1" "$2" "$EPOCHREALTIME" | dd of="$scratch/context/$1/$what/large" conv=notrunc status=none
    built "$1" "$scratch/context/$1/$what"
    [ "$2" -eq 0 ] || echo "$what $1 $took $peak" >>"$figures"
  done
}
report_peaks() {
  local side what
  for side in "${sides[@]}"; do
    for what in small stream; do
      grep "^$what $side " "$figures" | sort -n -k 4 | awk -v side="$side" -v what="$([ "$what" = small ] && echo '64 MB' || echo '5 GB')" '
        { peak[NR] = $4 } END { printf "    stream     %-5s peak memory of the client %6.1f MB with %s   (median of %d)\n", side, peak[int((NR + 1) / 2)] / 1024, what, NR }'
    done
  done
}
client_solves() { # SIDE N: twenty clients at once, each with a context of its own
  local n children=() from dir before after shell=$BASHPID
  for n in $(seq 20); do
    dir=$scratch/context/$1/many/$n
    [ -d "$dir" ] || make_context solves "$dir"
    echo "$1 $2 $n $EPOCHREALTIME" >"$dir/changing"
  done
  before=$(children_cpu "$shell")
  from=${EPOCHREALTIME/./}
  for n in $(seq 20); do
    $(client_command "$1" "$scratch/context/$1/many/$n") >"$scratch/client.$n.log" 2>&1 &
    children+=($!)
  done
  for n in "${!children[@]}"; do
    wait "${children[n]}" || { tail -n 30 "$scratch/client.$((n + 1)).log" >&2; fail "one of twenty builds"; }
  done
  after=${EPOCHREALTIME/./}
  [ "$2" -eq 0 ] || printf '%s %s %d\n' solves "$1" $((after - from)) solves-cpu "$1" $(($(children_cpu "$shell") - before)) >>"$figures"
}
# Microseconds of CPU of a shell's children that have ended.
children_cpu() { # PID
  sed 's/^.*) //' "/proc/$1/stat" | awk -v hz="$(getconf CLK_TCK)" '{ printf "%d\n", ($14 + $15) * 1000000 / hz }'
}
