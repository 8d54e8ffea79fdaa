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

apt_install() ( # PACKAGE...: in a subshell that prints each line before running it
    set -x
    $root apt-get update && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
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

# Python: an existing environment breaks when its folder is moved or its Python is removed.
if [ -e "$VENV/bin/pip" ]; then
    { [ "$("$VENV/bin/python" -c 'import sys; print(sys.prefix)')" -ef "$VENV" ] &&
        grep -qF "$(cd "$VENV" && pwd)" "$VENV/bin/pip"; } 2>/dev/null ||
        fail "$VENV no longer works (moved, or its Python is gone): type \`rm -r $VENV\`, then \`make\` again."
elif ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    found=$("$PYTHON" --version 2>/dev/null) || found=missing
    fail "Python 3.11 or newer is needed, but $PYTHON is $found: install one, then type e.g. \`make PYTHON=python3.12\`."
elif [ -d wheels ] && [ "$(kind)" != "$(<wheels/made-for)" ]; then
    fail "The packages in wheels/ are for $(<wheels/made-for), but $PYTHON is $(kind): name that Python, as in \`make PYTHON=python3.12\`."
elif ! "$PYTHON" -c 'import ensurepip' 2>/dev/null; then # Debian packages it separately
    package=$(basename "$PYTHON")-venv
    can_install || fail "Python's venv module is missing: type \`sudo apt-get install -y $package\`, then \`make\` again."
    apt_install "$package"
fi

if ! has_latex; then
    packages=(latexmk texlive-latex-recommended texlive-fonts-recommended lmodern)
    advice="LaTeX is missing: type \`sudo apt-get install -y --no-install-recommends ${packages[*]}\`"
    advice+=" (or, where there is no apt-get, install TeX Live or tectonic), then \`make\` again."
    if can_install; then apt_install "${packages[@]}"
    elif [ "$SYSTEM" = no ]; then echo "Continuing without it (SYSTEM=no), but the PDF needs it. $advice" >&2
    else fail "$advice"; fi
fi

if ! has_fashion_mnist && can_install; then
    apt_install dataset-fashion-mnist || echo "No package with Fashion-MNIST here: the workflow will download it."
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
            fail "This is not what the capsule held: unpack it again, or delete SHA256SUMS if the change is yours."
        from=(--no-index --find-links wheels)
    fi
    echo "Installing $lock into $VENV, once."
    [ -e "$VENV/bin/pip" ] || "$PYTHON" -m venv "$VENV"
    rm -f "$stamp"
    "$VENV/bin/python" -m pip install --disable-pip-version-check "${from[@]}" --require-hashes -r "$lock"
    echo "$sha256" >"$stamp"
done
