# Sourced by tests/bench: what is pushed.

compression() { case $1 in big-zstd) echo zstd ;; *) echo gzip ;; esac; }

make_app() { # APP DIR
  mkdir -p "$2/files"
  printf 'FROM busybox\nCOPY . /app\n' >"$2/Dockerfile"
  case $1 in tiny | pushes | builds) ;; *) echo 'RUN test -e /app/changing' >>"$2/Dockerfile" ;; esac
  echo 0 >"$2/changing"
  case $1 in big-*) ;; *) echo "a file" >"$2/files/one"; return ;; esac
  # 7,500 files of 80 MB in all, 75 directories; base64 of random bytes compresses by a quarter
  (cd "$2/files" && head -c 59200000 /dev/urandom | base64 -w 76 >../all && split -n 7500 -a 4 -d ../all f && rm ../all &&
    for at in $(seq -w 0 74); do mkdir "d$at"; mv f"$at"?? "d$at/"; done)
}

make_clones() {
  local app side dir at
  for app in "${apps[@]}"; do
    needs "$app" || continue
    make_app "$app" "$scratch/source/$app"
    for side in "${sides[@]}"; do
      dir=$scratch/clones/$side/$app
      mkdir -p "$(dirname "$dir")"
      cp -R "$scratch/source/$app" "$dir"
      git init -q -b main "$dir"
      git -C "$dir" config gc.auto 0
      git -C "$dir" config user.name bench
      git -C "$dir" config user.email bench@localhost
      git -C "$dir" config core.sshCommand "$client_ssh"
      at=${side}_at
      git -C "$dir" remote add builder "${!at}/$app.git"
      git -C "$dir" add -A
      git -C "$dir" commit -q -m first
    done
  done
}
needs() { # APP: whether a chosen scenario uses it
  case " ${scenarios[*]} " in *" $1 "*) return ;; *" noop "* | *" unchanged "*) [ "$1" = tiny ] ;; *) return 1 ;; esac
}

