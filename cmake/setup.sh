# Set-up, build and test, for the launcher (a POSIX shell sources this). What is installed lies in $deps, a folder named after the
# digest of what programs are compiled and linked with: clones share it, and a changed pin makes a new one. Within it, recipes' data
# and the tests' environment have digests of their own: another picture or oracle does not make the compiler start over.
pins=$ESPALIER_ROOT/dependencies.txt
digest_of() { grep -E "^($1) " "$pins" | sha256sum | cut -c1-16; }
deps=${ESPALIER_DEPS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/espalier-deps/$(digest_of 'site|headers')}
data_folder=data-$(digest_of data)
test_folder=test-venv-$(digest_of 'site|test')
zoo_folder=zoo-$(digest_of zoo)
ESPALIER_DEPS_DIR=$deps
export ESPALIER_DEPS_DIR
build_folder=$ESPALIER_ROOT/build/release

say() { printf '%s\n' "espalier: $*" >&2; }
stop() { say "$*"; exit 2; }
pinned() { awk -v kind="$1" '$1 == kind { print $2 }' "$pins"; }
version_of() { awk -v kind="$1" -v name="$2" '$1 == kind && $2 == name { print $3 }' "$pins"; }

missing_packages() {  # KIND → names of Debian packages that are absent or too old
  awk -v kind="$1" '$1 == kind { print $2, $3 }' "$pins" | while read -r name minimum; do
    have=$(dpkg-query -W -f='${db:Status-Status} ${Version}' "$name" 2>/dev/null)
    case $have in
      "installed "*) have=${have#installed }; dpkg --compare-versions "${have#*:}" ge "$minimum" || echo "$name" ;;
      *) echo "$name" ;;
    esac
  done
}

# The line of another suite on the mirror that this machine already uses.
suite_line() {  # SUITE
  . /etc/os-release
  sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null)
  mirror=$(printf '%s\n' "$sources" | awk -v suite="$VERSION_CODENAME" '
    /^URIs:/ { uri = $2 }
    /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == suite) { print uri; exit } }
    /^deb / { i = 2; if ($i ~ /^\[/) { while ($i !~ /\]$/) i++; i++ } if ($(i + 1) == suite) { print $i; exit } }')
  key=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -n "$mirror" ] && [ -n "$VERSION_CODENAME" ] || return 1
  [ -e "$key" ] && by=" [signed-by=$key]" || by=
  printf 'deb%s %s %s main\n' "$by" "$mirror" "$1"
}

backports_line() {
  . /etc/os-release
  suite_line "$VERSION_CODENAME-backports"
}

# Headers out of packages of another suite, whole or not at all. The system's own list of sources stays as it is: apt gets one of its
# own, in a folder that goes away. ESPALIER_HEADERS_DIR names a folder with the .deb files, for machines without a Debian mirror.
unpack_headers() {
  [ -e "$deps/headers/.complete" ] && return 0
  command -v dpkg-deb >/dev/null 2>&1 || stop "dpkg-deb is missing; it unpacks: $(pinned headers)"
  rm -rf "$deps/headers.part"
  mkdir -p "$deps/headers.part"
  awk '$1 == "headers" { print $2, $3, $4, $5 }' "$pins" | while read -r name version suite digest; do
    say "unpacking headers: $name $version"
    apt_folder=$(mktemp -d) && trap 'rm -rf "$apt_folder"' EXIT && mkdir -p "$apt_folder/lists/partial" "$apt_folder/cache/archives/partial" || exit 2
    if [ -n "${ESPALIER_HEADERS_DIR-}" ]; then
      cp "$ESPALIER_HEADERS_DIR/$name"_*.deb "$apt_folder" 2>/dev/null || { say "there is no $name package in ESPALIER_HEADERS_DIR ($ESPALIER_HEADERS_DIR)"; exit 2; }
    else
      line=$(suite_line "$suite") || { say "cannot tell the Debian mirror of this machine; get the package $name $version of Debian $suite and name its folder: ESPALIER_HEADERS_DIR"; exit 2; }
      printf '%s\n' "$line" >"$apt_folder/suite.list"
      set -- -q -o Dir::Etc::sourcelist="$apt_folder/suite.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$apt_folder/lists" \
        -o Dir::Cache="$apt_folder/cache" -o APT::Sandbox::User="$(id -un)"
      (cd "$apt_folder" && apt-get "$@" update && apt-get "$@" download "$name=$version") >"$apt_folder/log" 2>&1 ||
        { tail -n 5 "$apt_folder/log" >&2; say "apt could not download $name $version from Debian $suite; get it by other means and name its folder: ESPALIER_HEADERS_DIR"; exit 2; }
    fi
    found=$(cat "$apt_folder/$name"_*.deb | sha256sum | cut -d' ' -f1)
    [ "$found" = "$digest" ] || { say "$name $version has the digest $found, dependencies.txt pins $digest (another architecture, or a changed package)"; exit 2; }
    dpkg-deb -x "$apt_folder/$name"_*.deb "$deps/headers.part" || exit 2
    rm -rf "$apt_folder"
    trap - EXIT
  done || exit 2
  rm -rf "${deps:?}/headers"
  mv "$deps/headers.part" "$deps/headers" && : >"$deps/headers/.complete"
}

install_packages() {  # KIND…
  plain=$(for kind in "$@"; do missing_packages "$kind"; done | tr '\n' ' ')
  back=$(missing_packages backport | tr '\n' ' ')
  [ -z "$plain$back" ] && return 0
  if ! command -v apt-get >/dev/null 2>&1; then
    stop "missing: $plain$back. This system has no apt; install the same by its own means (dependencies.txt), or use cmake --preset release"
  fi
  if [ -n "$back" ]; then
    line=$(backports_line) || stop "cannot tell the Debian mirror of this machine; add its backports suite and install: $back"
    . /etc/os-release
  fi
  if [ "$(id -u)" = 0 ]; then sudo=
  elif sudo -n true 2>/dev/null; then sudo=sudo
  else
    say "system packages are missing; run as root, then call again:"
    [ -n "$back" ] && say "  echo '$line' > /etc/apt/sources.list.d/espalier-backports.list"
    say "  apt-get update && apt-get install -y --no-install-recommends $plain${back:+&& apt-get install -y --no-install-recommends -t $VERSION_CODENAME-backports $back}"
    exit 2
  fi
  say "installing system packages: $plain$back"
  if [ -n "$back" ]; then
    grep -rqs -- "$VERSION_CODENAME-backports" /etc/apt/sources.list /etc/apt/sources.list.d || printf '%s\n' "$line" | $sudo tee /etc/apt/sources.list.d/espalier-backports.list >/dev/null
  fi
  log=$(mktemp)
  {
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 update -q &&
      { [ -z "$plain" ] || $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends $plain; } &&
      { [ -z "$back" ] || $sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y -q --no-install-recommends -t "$VERSION_CODENAME-backports" $back; }
  } >"$log" 2>&1 || { tail -n 15 "$log" >&2; stop "apt could not install them (whole log: $log)"; }
  rm -f "$log"
}

pip() { "$deps/pip/bin/python" -m pip --disable-pip-version-check "$@"; }

# A LibTorch that the user brings is used instead of ours.
own_torch() { [ -n "${Torch_DIR-}" ] || [ -n "${CMAKE_PREFIX_PATH-}" ]; }

# A set of Python packages into a folder, whole or not at all.
unpack_packages() {  # KIND FOLDER
  [ -e "$deps/$2/.complete" ] && { [ "$1" != site ] || [ -d "$deps/site/torch" ] || own_torch; } && return 0
  say "unpacking ($1): $(pinned "$1" | tr '\n' ' ')"
  rm -rf "$deps/$2.part"
  wanted=
  for name in $(pinned "$1"); do
    if [ "$name" = torch ]; then
      own_torch && { say "using your LibTorch (Torch_DIR or CMAKE_PREFIX_PATH)"; continue; }
      check_torch
    fi
    wanted="$wanted $name==$(version_of "$1" "$name")"
  done
  pip install -q --no-deps --no-compile --target "$deps/$2.part" ${torch_index-} $wanted || stop "pip could not install:$wanted"
  rm -rf "${deps:?}/$2"
  mv "$deps/$2.part" "$deps/$2" && : >"$deps/$2/.complete"
}

# A wheel cannot carry links, so a library's file bears its whole version; the loader asks for the name that it calls itself.
link_libraries() {
  for library in "$deps"/site/onnxruntime/capi/libonnxruntime.so.*.*.*; do
    [ -e "$library" ] && ln -sfn "${library##*/}" "${library%.*.*}"
  done
}

# The CPU build, or nothing: a CUDA build is several gigabytes and never installed unasked.
check_torch() {
  torch_index=
  [ -n "${ESPALIER_TORCH_INDEX-}" ] && torch_index="--extra-index-url $ESPALIER_TORCH_INDEX"
  wanted_torch=torch==$(version_of site torch)
  report=$(mktemp)
  pip install -q --dry-run --no-deps --ignore-installed --report "$report" $torch_index "$wanted_torch" || { rm -f "$report"; stop "pip does not find $wanted_torch"; }
  found=$("$deps/pip/bin/python" -c 'import json,sys; print(json.load(open(sys.argv[1]))["install"][0]["metadata"]["version"])' "$report")
  rm -f "$report"
  case $found in
    *+cpu) ;;
    *) stop "pip would install torch $found, which is no CPU build. Give an index of CPU builds in ESPALIER_TORCH_INDEX, or bring a LibTorch: Torch_DIR=…/share/cmake/Torch" ;;
  esac
}

test_environment() {
  [ -L "$deps/test-venv" ] || rm -rf "${deps:?}/test-venv"  # an older layout
  ln -sfn "$test_folder" "$deps/test-venv"
  [ -e "$deps/test-venv/.complete" ] && return 0
  say "making the tests' environment: $(pinned test | tr '\n' ' ')"
  rm -rf "${deps:?}/$test_folder"
  python3 -m venv "$deps/$test_folder" || stop "python3 -m venv failed (install python3-venv)"
  wanted=
  for name in $(pinned test); do wanted="$wanted $name==$(version_of test "$name")"; done
  "$deps/test-venv/bin/python" -m pip --disable-pip-version-check install -q --no-deps $wanted || stop "pip could not install:$wanted"
  for folder in "$deps"/test-venv/lib/python3*/site-packages; do
    echo "$deps/site" >"$folder/espalier.pth"
    # A LibTorch of the user's own may be no Python package: the oracles then use that wheel's folder, if it is one.
    own_torch && [ -n "${Torch_DIR-}" ] && (cd "$Torch_DIR/../../../.." && pwd) >>"$folder/espalier.pth"
  done
  : >"$deps/test-venv/.complete"
}

quickstart_data() {
  [ -e "$ESPALIER_ROOT/pipelines/data" ] && [ ! -L "$ESPALIER_ROOT/pipelines/data" ] && return 0
  ln -sfn "$deps/$data_folder" "$ESPALIER_ROOT/pipelines/data"
}

set_up() {
  if [ "${1-}" = --check ]; then
    lacking="$(missing_packages apt) $(missing_packages backport)"
    for part in site headers "$data_folder" "$test_folder"; do [ -e "$deps/$part/.complete" ] || lacking="$lacking $part"; done
    lacking=$(echo $lacking)
    [ -z "$lacking" ] && { say "everything is there"; return 0; }
    say "missing: $lacking"
    return 1
  fi
  case ${1-} in --all) install_packages apt fuzz ;; *) install_packages apt ;; esac || exit $?
  mkdir -p "$deps" || stop "cannot write $deps (ESPALIER_DEPS_DIR names another folder)"
  exec 9>"$deps/.lock"
  flock 9
  [ -x "$deps/pip/bin/python" ] || python3 -m venv "$deps/pip" || stop "python3 -m venv failed (install python3-venv)"
  unpack_packages site site
  link_libraries
  unpack_headers
  unpack_packages data "$data_folder"
  quickstart_data
  case ${1-} in --tests | --all) test_environment ;; esac
  [ "${1-}" = --all ] && unpack_packages zoo "$zoo_folder" && ln -sfn "$zoo_folder" "$deps/zoo"
  flock -u 9
  exec 9>&-
  return 0
}

build() {
  cd "$ESPALIER_ROOT" || exit 2
  log=$ESPALIER_ROOT/build/configure.log
  mkdir -p "$ESPALIER_ROOT/build"
  # Configured anew, from nothing, when the pins have changed, too: more than one entry of the cache names their folder.
  if [ ! -e "$build_folder/build.ninja" ] || [ "$(sed -n 's/^ESPALIER_DEPS:[A-Z]*=//p' "$build_folder/CMakeCache.txt" 2>/dev/null)" != "$deps" ]; then
    cmake --fresh --preset release -DESPALIER_DEPS="$deps" >"$log" 2>&1 || { tail -n 30 "$log" >&2; stop "cmake failed (whole log: build/configure.log)"; }
  fi
  case ${1-} in "" | -*) ;; *) set -- --target "$@" ;; esac
  say "building"
  cmake --build "$build_folder" "$@" >&2 || stop "the build failed"
}

run_tests() {
  cd "$ESPALIER_ROOT" && exec ctest --test-dir "$build_folder" --output-on-failure --no-tests=error "$@"
}

# The tests, then what takes longer: the zoo, real files and fuzzing. Goes through all of it and tells at the end what failed.
run_all_tests() {
  cd "$ESPALIER_ROOT" || exit 2
  python=$deps/test-venv/bin/python
  PYTHONPATH=$deps/zoo${PYTHONPATH:+:$PYTHONPATH}
  export PYTHONPATH
  failed=
  attempt() {  # NAME COMMAND…
    name=$1
    shift
    say "$name: $*"
    "$@" || failed="$failed $name"
  }
  attempt tests ctest --test-dir "$build_folder" --output-on-failure --no-tests=error
  attempt zoo "$python" tests/zoo/zoo.py --agree 38 --cut 35
  attempt real-files "$python" tests/zoo/real_files.py
  attempt fuzzing tests/fuzz/run
  [ -z "$failed" ] && say "all of it passed" && return 0
  say "failed:$failed"
  return 1
}
