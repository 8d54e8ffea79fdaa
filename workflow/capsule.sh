#!/usr/bin/env bash
# Writes dist/effective-lr-<version>-capsule.tar: all that `make` needs of a network, for this kind of machine.
# Started by the Makefile, in the root of the repository and in its environment. setup.sh installs from it.
set -euo pipefail

[ "$(git rev-parse --show-toplevel 2>/dev/null)" -ef . ] || # a repository around this folder is another one
    { echo "$PWD: git finds no repository here, but a capsule holds its last commit; run this in a clone" >&2; exit 1; }

version=$(sed -n 's/^version: //p' CITATION.cff)
name=effective-lr-$version-capsule
root=dist/$name
rm -rf "$root"
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"

git archive HEAD | tar -x -C "$root"
fetch() { python -m pip download --disable-pip-version-check --quiet --dest "$root/wheels" "$@"; }
fetch --no-deps --require-hashes --requirement "$root/requirements.lock"
fetch wheel # builds the packages that come as source
python -c 'import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())' >"$root/wheels/made-for"
data=$(python -m effective_lr raw --folder data --into "$root/data")

cat >"$root/CAPSULE.md" <<END
# Time capsule: effective-lr $version

Commit $(git log -1 --format='%h of %cs') with its published results, every Python package of requirements.lock, and the raw data:
$data. With it nothing is downloaded. It is for \`$(<"$root/wheels/made-for")\`: that Python on
that kind of machine.

What it does not hold: Python itself, make, and LaTeX. On Debian or Ubuntu these are
\`make python3-venv $(sed -n 's/^ *packages=(\(.*\))/\1/p' workflow/setup.sh)\`.

\`\`\`sh
tar -xf $name.tar && cd $name
make METRICS=published    # the paper of the published study: paper/build/published-study/main.pdf
make SCALE=smoke          # every step from raw data on, tiny: paper/build/smoke/main.pdf
\`\`\`

\`make\` alone trains the laptop scale. The first of them checks every file against SHA256SUMS and installs the packages into
\`.venv\` (7 GB). README.md is that of the project.
END
(cd "$root" && find . -type f ! -path ./SHA256SUMS -print0 | sort -z | xargs -0 sha256sum >SHA256SUMS)
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct)" -C dist -cf "dist/$name.tar" "$name"
echo "dist/$name.tar: $(git describe --always --dirty), $(du -h "dist/$name.tar" | cut -f1)"
