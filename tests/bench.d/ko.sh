# Sourced by tests/bench: Go modules, `git push` and `lemnos ko build` beside `ko build`; all three end with the image in the registry.

ko_scenarios="ko-change ko-unchanged"
is_ko() { case " $ko_scenarios " in *" $1 "*) ;; *) return 1 ;; esac; }

# A main package over 200 others in ten layers: each imports three of the layer below and three packages of the standard library.
make_module() { # DIR
  local dir=$1 layer at below n std=(encoding/json net/http html/template regexp text/tabwriter go/format archive/zip encoding/xml crypto/tls mime/multipart)
  local use=('json.Marshal' 'http.StatusText' 'template.HTMLEscapeString' 'regexp.QuoteMeta' 'tabwriter.NewWriter' 'format.Source' 'zip.NewReader' 'xml.Marshal' 'tls.VersionName' 'multipart.NewReader')
  mkdir -p "$dir"
  printf 'module example.com/bench\n\ngo 1.24\n' >"$dir/go.mod"
  printf 'defaultBaseImage: %s/chainguard/static:latest\ndefaultPlatforms: [linux/amd64, linux/arm64]\n' "$LEMNOS_TEST_BASE_REGISTRY" >"$dir/.ko.yaml"
  for layer in $(seq 0 9); do
    for at in $(seq 0 19); do
      n=l${layer}p$at
      mkdir "$dir/$n"
      {
        printf 'package %s\n\nimport (\n' "$n"
        for below in 0 1 2; do
          printf '\t"%s"\n' "${std[(at + layer + below) % 10]}"
          [ "$layer" -eq 0 ] || printf '\t"example.com/bench/l%dp%d"\n' $((layer - 1)) $(((at + below * 7) % 20))
        done
        printf ')\n\nvar used = []any{'
        for below in 0 1 2; do printf '%s, ' "${use[(at + layer + below) % 10]}"; done
        printf '}\n\ntype Order struct {\n\tName string\n\tCount int\n\tParts map[string][]float64\n}\n\n'
        for below in $(seq 20); do
          printf 'func (o *Order) Step%d(n int) int {\n\tfor i := range n {\n\t\to.Count += i * %d\n\t\to.Parts[o.Name] = append(o.Parts[o.Name], float64(o.Count))\n\t}\n\treturn o.Count\n}\n\n' "$below" "$below"
        done
        printf 'func Run(n int) int {\n\to := Order{Name: "%s", Parts: map[string][]float64{}}\n\tn += len(used)' "$n"
        for below in $(seq 20); do printf ' + o.Step%d(n)' "$below"; done
        echo
        [ "$layer" -eq 0 ] || for below in 0 1 2; do printf '\tn += l%dp%d.Run(n %% 3)\n' $((layer - 1)) $(((at + below * 7) % 20)); done
        printf '\treturn n\n}\n'
      } >"$dir/$n/$n.go"
    done
  done
  {
    printf 'package main\n\nimport (\n'
    for at in $(seq 0 19); do printf '\t"example.com/bench/l9p%d"\n' "$at"; done
    printf ')\n\nfunc main() {\n\tprintln(word)\n'
    for at in $(seq 0 19); do printf '\tprintln(l9p%d.Run(1))\n' "$at"; done
    printf '}\n'
  } >"$dir/main.go"
  printf 'package main\n\nconst word = "first"\n' >"$dir/word.go"
}

# Go is the one that the toolchain image was made of; its cache is the peer's own, and stays warm.
ko_command() { # SIDE DIR
  local peer="$LEMNOS_TEST_REGISTRY_ADDR/peer"
  case $1 in
    ours) echo git -C "$2" push -q builder main ;;
    command) echo env -C "$2" KO_DOCKER_REPO="$LEMNOS_TEST_REGISTRY_ADDR/command" "$lemnos" ko build --builder "$LEMNOS_TEST_BUILDKIT_ADDR" \
      --mirror "docker.io=$LEMNOS_TEST_BASE_REGISTRY" . ;;
    peer) echo env -C "$2" KO_DOCKER_REPO="$peer" PATH="$(dirname "$LEMNOS_TEST_GO"):$PATH" GOCACHE="$scratch/gocache" GOENV=off GOFLAGS= \
      GOTOOLCHAIN=local "$LEMNOS_TEST_KO" build . ;;
  esac
}
ko_built() { # SIDE: sets took (microseconds)
  local from=${EPOCHREALTIME/./}
  $(ko_command "$1" "$scratch/module/$1") >"$scratch/ko.log" 2>&1 || { tail -n 30 "$scratch/ko.log" >&2; fail "the build of $scratch/module/$1"; }
  took=$((${EPOCHREALTIME/./} - from))
}
prepare_ko() {
  # the other scenarios' server stays theirs
  local side dir ours_pid ours_addr ours_data
  [ -e "$scratch/module" ] && return
  "$root/tests/engines" image "$LEMNOS_TEST_ENGINES" golang
  "$root/tests/engines" image "$LEMNOS_TEST_ENGINES" static
  if [ -z "$peer_only" ]; then
    serve_ours ko --mirror "docker.io=$LEMNOS_TEST_BASE_REGISTRY"
    "$lemnos" apps create module --data "$ours_data" >/dev/null
    "$lemnos" apps grant module bench --data "$ours_data" >/dev/null
  fi
  for side in "${sides[@]}"; do
    dir=$scratch/module/$side
    make_module "$dir"
    git init -q -b main "$dir"
    git -C "$dir" config gc.auto 0
    git -C "$dir" config user.name bench
    git -C "$dir" config user.email bench@localhost
    [ "$side" != ours ] || git -C "$dir" config core.sshCommand "$client_ssh"
    [ "$side" != ours ] || git -C "$dir" remote add builder "ssh://git@$ours_addr/module.git"
    git -C "$dir" add -A
    git -C "$dir" commit -q -m first
    echo "    $side: $(ko_command "$side" DIR)"
  done
  echo "    all: $("$LEMNOS_TEST_GO" version), a copy of which the builder compiles with; $("$LEMNOS_TEST_KO" version); ko with its defaults"
}
# A line of the main package changes: what is compiled is the least, so that everything else weighs the most.
ko_change() { # SIDE
  printf 'package main\n\nconst word = "%s %s"\n' "$1" "$EPOCHREALTIME" >"$scratch/module/$1/word.go"
  git -C "$scratch/module/$1" commit -q -a -m change
}
ko_once() { # SCENARIO SIDE: sets took
  case $1 in
    ko-change) ko_change "$2" ;;
    # the same commit comes to its branch again: git itself would not push what is there
    ko-unchanged) [ "$2" != ours ] ||
      git -C "$scratch/module/ours" push -q builder +main~1:main >"$scratch/ko.log" 2>&1 ||
      { tail -n 30 "$scratch/ko.log" >&2; fail "a push back"; } ;;
  esac
  ko_built "$2"
}
measure_ko() { # SCENARIO
  local n side order sides=("${sides[@]}")
  [ -n "$peer_only" ] || sides=(ours command peer)
  prepare_ko
  # what was never built is no part of either scenario; the second build has the first one's caches
  for side in "${sides[@]}"; do ko_built "$side"; ko_change "$side"; ko_built "$side"; done
  for n in $(seq 0 "$rounds"); do
    order=("${sides[@]:n % ${#sides[@]}}" "${sides[@]:0:n % ${#sides[@]}}")
    for side in "${order[@]}"; do
      ko_once "$1" "$side"
      [ "$n" -eq 0 ] || echo "$1 $side $took" >>"$figures"
    done
  done
  [ -n "$peer_only" ] || sides=(ours peer)
  report "$1"
  [ -n "$peer_only" ] || {
    # the command beside the same peer
    sed -n "s/^$1 command /$1-command ours /p; s/^$1 peer /$1-command peer /p" "$figures" >"$scratch/command"
    cat "$scratch/command" >>"$figures"
    report "$1-command"
  }
}
