#!/usr/bin/env bash
# Provides what Snakemake needs before it can start: LaTeX, Fashion-MNIST and the virtual environment.
# Started by the Makefile, in the root of the repository, with the names of further locks; PYTHON, VENV and SYSTEM are explained
# there. A folder wheels/ makes this a time capsule (capsule.sh): then all comes from there, and nothing from a network.
set -euo pipefail

fail() { echo "$*" >&2; exit 1; }

# Sets `root` to what has to precede a command that needs root, if that works without a password.
can_install() {
    [ "$SYSTEM" != no ] && [ ! -d wheels ] && command -v apt-get >/dev/null || return 1
    if [ "$(id -u)" = 0 ]; then root=""; else root="sudo -n"; $root true 2>/dev/null; fi
}

# Whether another apt-get is at work, by the locks that the kernel knows.
is_locked() {
    locks=$(stat -c ':%i ' /var/lib/apt/lists/lock /var/lib/dpkg/lock /var/lib/dpkg/lock-frontend 2>/dev/null)
    [ -n "$locks" ] && grep -qF "$locks" /proc/locks 2>/dev/null
}

apt_install() ( # PACKAGE...: in a subshell that prints each line before running it
    ! is_locked || echo "Another apt-get is running: waiting for it, for up to ten minutes." >&2
    while is_locked && [ "$SECONDS" -lt 600 ]; do sleep 2; done
    set -x
    $root apt-get update || echo "apt-get update failed: continuing with the present package lists." >&2
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
)

has_latex() {
    command -v tectonic >/dev/null && return
    command -v latexmk >/dev/null && command -v pdflatex >/dev/null &&
        kpsewhich booktabs.sty lmodern.sty natbib.sty >/dev/null
}

has_fashion_mnist() {
    [ -n "$(find -L data /usr/share/datasets/fashion-mnist -name 'train-images-idx3-ubyte*' 2>/dev/null)" ]
}

kind() { "$PYTHON" -c 'import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())'; }

# The environment. It is this script's own where the stamp of its first lock is there, which is made before all else.
own="$VENV/requirements.lock.sha256"
works() {
    { [ "$("$VENV/bin/python" -c 'import sys; print(sys.prefix)')" -ef "$VENV" ] &&
        grep -qF "$(cd "$VENV" && pwd)" "$VENV/bin/pip"; } 2>/dev/null
}
is_new() { # a virtual environment that somebody made for this, with nothing but pip
    [ -e "$VENV/pyvenv.cfg" ] && works &&
        ! ls "$VENV"/lib/python*/site-packages | grep -qvE '^(pip|setuptools|wheel|pkg_resources|_distutils_hack|distutils-p|_virtualenv|__pycache__)'
}
[[ $PWD/$VENV != *:* ]] || fail "$PWD, VENV=$VENV: programs in a folder whose name has a colon are not found; rename it."
if [ ! -e "$own" ] && [ -e "$VENV" ] && [ -n "$(ls -A "$VENV")" ] && ! is_new; then
    fail "$VENV: not a virtual environment of this project, so it stays as it is; choose a new folder, as in \`make VENV=.venv\`."
elif [ -e "$VENV/bin/pip" ]; then # it breaks when its folder is moved or its Python is removed
    works || fail "$VENV no longer works (moved, or its Python is gone): type \`rm -r $VENV\`, then \`make\` again."
elif ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$PYTHON" --version 2>/dev/null) || found=missing
    fail "Python 3.11 or newer is needed, but $PYTHON is $found: install one, then type e.g. \`make PYTHON=python3.12\`."
elif [ -d wheels ] && [ "$(kind)" != "$(<wheels/made-for)" ]; then
    fail "The packages in wheels/ are for $(<wheels/made-for), but $PYTHON is $(kind): choose a Python of that kind, as in \`make PYTHON=python3.12\`."
elif ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then # Debian packages it separately
    package=$(basename "$PYTHON")-venv
    can_install || fail "Python's venv module is missing: type \`sudo apt-get install -y $package\`, then \`make\` again."
    apt_install "$package"
fi

if ! has_latex; then
    packages=(latexmk texlive-latex-recommended texlive-fonts-recommended lmodern)
    advice="LaTeX is missing: type \`sudo apt-get install -y --no-install-recommends ${packages[*]}\`"
    advice+=" (or, where there is no apt-get, install TeX Live or tectonic), then \`make\` again."
    if can_install; then apt_install "${packages[@]}" || fail "$advice"
    elif [ "$SYSTEM" = no ]; then echo "Continuing without it (SYSTEM=no), but the PDF needs it. $advice" >&2
    else fail "$advice"; fi
fi

if ! has_fashion_mnist && can_install; then
    apt_install dataset-fashion-mnist || echo "No Debian package of Fashion-MNIST found: the workflow will download it."
fi

# The virtual environment, one lock after another. The stamp of a lock is written last, so that an interrupted installation is
# taken up again.
for lock in requirements.lock "$@"; do
    stamp="$VENV/$lock.sha256"
    sha256=$(sha256sum <"$lock")
    [ ! -e "$stamp" ] || [ "$(<"$stamp")" != "$sha256" ] || continue
    from=()
    if [ -d wheels ]; then
        sha256sum --check --quiet SHA256SUMS ||
            fail "These files differ from the capsule: unpack it again, or delete SHA256SUMS if you changed them."
        from=(--no-index --find-links wheels)
    fi
    echo "Installing the packages of $lock into $VENV."
    mkdir -p "$VENV"
    : >"$stamp"
    [ -e "$VENV/bin/pip" ] || "$PYTHON" -m venv "$VENV"
    "$VENV/bin/python" -m pip install --disable-pip-version-check "${from[@]}" --require-hashes -r "$lock"
    # A setting of pip may have sent the packages elsewhere, or nowhere.
    [ "$lock" = requirements.lock ] && modules="snakemake, torch" || modules="pytest, jupyterlab"
    "$VENV/bin/python" -Ic "import $modules" ||
        fail "$lock: pip succeeded, but $VENV/bin/python cannot import $modules; remove the settings that send packages elsewhere (see \`pip config list\` and \`env | grep PIP\`), then \`make\` again."
    echo "$sha256" >"$stamp"
done
