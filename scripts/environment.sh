# Sourced by the scripts beside it: makes .venv, and installs again when pyproject.toml changed.
# The caller has set: root (of the clone), say (its own name).

# Tests use programs such as mkfs.ext4, which the PATH of a plain user does not have.
export PATH=$PATH:/usr/sbin:/sbin

fail() {
    printf '%s: %s\n' "$say" "$*" >&2
    exit 1
}

note() {
    printf '%s: %s\n' "$say" "$*" >&2
}

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

# A Python of this machine, 3.11 or newer; the highest of those with a version in their name.
find_python() {
    local name
    for name in python3.14 python3.13 python3.12 python3.11 python3 python; do
        if command -v "$name" >/dev/null 2>&1 && "$name" -c "$new_enough" >/dev/null 2>&1; then
            command -v "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer was found in PATH. On Debian or Ubuntu: apt install python3 python3-venv"
}

# An empty .venv with pip. Debian keeps that part of Python in a package of its own.
make_venv() {
    local python=$1 folder=$root/.venv
    note "making .venv with $("$python" --version)"
    rm -rf "$folder"
    if "$python" -m venv "$folder" >/dev/null 2>&1; then
        return
    fi
    rm -rf "$folder"
    if "$python" -m pip --version >/dev/null 2>&1 && "$python" -m venv --without-pip "$folder" >/dev/null 2>&1 &&
        "$python" -m pip --python "$folder/bin/python" --quiet install pip; then
        return
    fi
    rm -rf "$folder"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        note "this Python has no venv; installing it with apt-get"
        apt-get update -qq >&2 || true
        local package
        package=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$package" >&2 || true
        if "$python" -m venv "$folder"; then
            return
        fi
        rm -rf "$folder"
    fi
    fail "$python cannot make a virtual environment. On Debian or Ubuntu: apt install python3-venv"
}

# install_product [EXTRA]: afterwards .venv holds the product (editable), with that extra.
install_product() (
    extra=${1:-}
    folder=$root/.venv
    stamp=$folder/.installed
    # One at a time, should two scripts be started together; the lock ends with this subshell.
    if command -v flock >/dev/null 2>&1; then
        exec 9<"$root"
        flock 9
    fi
    sum=$(sha256sum <"$root/pyproject.toml" | cut -d' ' -f1)
    place='' installed='' with=''
    if [ -f "$stamp" ]; then
        { read -r place && read -r installed && read -r with; } <"$stamp" || true
    fi
    if "$folder/bin/python" -c "$new_enough" >/dev/null 2>&1; then
        if [ "$place" = "$root" ] && [ "$installed" = "$sum" ] && { [ -z "$extra" ] || [ "$with" = "$extra" ]; }; then
            exit 0
        fi
    else
        place=nowhere
    fi
    # A .venv of another place (a moved or copied clone) points back to there, one without pip cannot be filled.
    if [ "${place:-$root}" != "$root" ] || ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
        python=$(find_python)
        make_venv "$python" 9<&-
    fi
    rm -f "$stamp"
    note "installing caso-mesh and what it needs into .venv"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
        --editable "$root${extra:+[$extra]}" 9<&- || fail "the installation failed; see above"
    printf '%s\n%s\n%s\n' "$root" "$sum" "$extra" >"$stamp"
)
