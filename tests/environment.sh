# Makes the virtual environment that ./demo and tests/run work in; both source this file, in the repository's root.

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# Hundreds of processes are started, and each would compile the package again.
unset PYTHONDONTWRITEBYTECODE

say() { echo "${0##*/}: $*" >&2; }

# Installs Debian packages without letting them start their services.
install_packages() {
  if [ "$(id -u)" != 0 ]; then
    say "not root: install $* yourself, or name servers in CALLBOARD_TEST_REDIS and CALLBOARD_TEST_AMQP"
    return 1
  fi
  command -v apt-get >/dev/null || { say "no apt-get here: install $* yourself"; return 1; }
  say "installing $*"
  local policy=/usr/sbin/policy-rc.d saved="" done=0
  if [ -e "$policy" ]; then
    saved="$(mktemp "$policy.XXXXXX")"
    cp -p "$policy" "$saved"
  fi
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  {
    apt-get -o DPkg::Lock::Timeout=300 update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@"
  } </dev/null >&2 || done=$?
  if [ -n "$saved" ]; then mv "$saved" "$policy"; else rm -f "$policy"; fi
  return "$done"
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  say "Python 3.11 or later is needed (PYTHON may name it)"
  return 1
}

# make_environment EXTRAS: .venv with the package, editable, and these extras; made again when pyproject.toml changes.
# "all,test" serves every wish.
make_environment() {
  local python wanted had
  if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python="$(find_python)"; fi
  wanted="$("$python" -c 'import hashlib, sys; print(sys.version, hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')"
  had="$(cat .venv/installed 2>/dev/null || true)"
  if [ "$had" = "$wanted $1" ] || [ "$had" = "$wanted all,test" ]; then return; fi
  say "making .venv with $("$python" --version)"
  if [ ! -x .venv/bin/python ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      install_packages "$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')"
    fi
    "$python" -m venv .venv
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".${1:+[$1]}" </dev/null
  echo "$wanted $1" >.venv/installed
}
