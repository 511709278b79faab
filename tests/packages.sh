# For scripts to source: packages from PyPI, in pinned versions, each set in a folder of its own.

# install_packages PINS FOLDER [PYTHON [OPTION…]]: installs what the requirements file PINS lists into FOLDER, for the interpreter PYTHON.
# FOLDER/pins is written last: an installation that was cut off is done again.
install_packages() {
    local pins=$1 folder=$2 python=${3:-python3}
    if cmp -s "$pins" "$folder/pins"; then return 0; fi
    rm -rf "$folder"
    PIP_ROOT_USER_ACTION=ignore "$python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: "${@:4}" \
        --target "$folder" --requirement "$pins" || return
    cp "$pins" "$folder/pins"
}
