# Sourced by tests/bench: one push after the other, and the report of every scenario.

pushed() { # SIDE APP ARGS…: one push, timed in microseconds into $took; a refused one ends everything
  local dir=$scratch/clones/$1/$2 from; shift 2
  from=${EPOCHREALTIME/./}
  git -C "$dir" push -q builder "$@" >"$scratch/push.log" 2>&1 || { tail -n 30 "$scratch/push.log" >&2; fail "push of $dir"; }
  took=$((${EPOCHREALTIME/./} - from))
}
change() { # SIDE APP: its own content on each side, or the second build would find the first one's steps cached
  local dir=$scratch/clones/$1/$2
  echo "$1 $RANDOM $EPOCHREALTIME" >"$dir/changing"
  git -C "$dir" commit -q -a -m change
}
once() { # SCENARIO SIDE N
  case $1 in
    noop) pushed "$2" tiny main ;;
    unchanged) git -C "$scratch/clones/$2/tiny" tag "v$3"; pushed "$2" tiny "v$3" ;;
    *) change "$2" "$1"; pushed "$2" "$1" main ;;
  esac
}
measure() { # SCENARIO
  local n side order
  for n in $(seq 0 "$rounds"); do
    order=("${sides[@]}")
    [ $((n % 2)) -eq 0 ] || order=($(printf '%s\n' "${sides[@]}" | tac))
    for side in "${order[@]}"; do
      once "$1" "$side" "$n"
      # the first round warms both
      [ "$n" -eq 0 ] || echo "$1 $side $took" >>"$figures"
    done
  done
  report "$1"
}
report() { # SCENARIO
  local side
  for side in "${sides[@]}"; do
    grep "^$1 $side " "$figures" | awk '{ print $3 }' | sort -n | awk -v what="$1" -v side="$side" '
      { t[NR] = $1 / 1000 }
      function at(q) { i = q * (NR - 1) + 1; l = int(i); return l >= NR ? t[NR] : t[l] + (i - l) * (t[l + 1] - t[l]) }
      END { printf "    %-10s %-5s median %8.1f ms   quartiles %8.1f to %8.1f   (%d rounds)\n", what, side, at(0.5), at(0.25), at(0.75), NR }'
  done
  [ "${#sides[@]}" -eq 1 ] || for side in ours peer; do grep "^$1 $side " "$figures" | awk '{ print $3 }' | sort -n |
    awk '{ t[NR] = $1 } END { print NR % 2 ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2 }'; done |
    awk -v what="$1" 'NR == 1 { o = $1 } NR == 2 { printf "    %-10s ours/peer %.2f\n", what, o / $1 }'
}
first_pushes() {
  local app side
  for app in "${apps[@]}"; do
    needs "$app" || continue
    for side in "${sides[@]}"; do pushed "$side" "$app" main; done
  done
}
