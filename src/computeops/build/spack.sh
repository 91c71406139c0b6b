# How Spack is run in the root: spack.py puts `verb`, `given` (the recipe's sources) and `cpus` before this.
umask 022
here=$PWD
export PYTHONPATH="$here/python" PYTHONDONTWRITEBYTECODE=1
export SPACK_USER_CONFIG_PATH="$here/user" SPACK_USER_CACHE_PATH="$here/cache" SPACK_SYSTEM_CONFIG_PATH="$here/system"
mkdir -p config python "$here/mirror"
for wheel in *.whl; do python3 -m zipfile -e "$wheel" python; done

# Spack, and repositories of packages
for one in $given; do
    ! tar -tf "$one" 2>/dev/null | grep -qE '^([^/]+/){1,4}(bin/spack|repo\.yaml)$' || tar -xf "$one" --no-same-owner
done
set -- */bin/spack
[ -x "$1" ] || { echo "no source of the recipe is Spack: none has bin/spack"; exit 1; }
own=${1%/bin/spack}
spack() { "$here/$own/bin/spack" -C "$here/config" "$@"; }
find . -mindepth 2 -maxdepth 5 -name repo.yaml ! -path "./$own/*" | sort | while read -r file; do
    folder=$here/${file%/repo.yaml}
    # from Spack 1.0 on, its packages are a repository of their own and all have names
    if [ -d "$own/var/spack/repos/builtin" ]; then echo "- $folder"; else echo "  ${folder##*/}: $folder"; fi
done > found
[ ! -s found ] || { echo repos:; cat found; } > config/repos.yaml

cat > config/config.yaml <<YAML
config:
  install_tree: {root: /opt/spack}
  build_stage: [$here/stage]
  source_cache: $here/fetched
YAML
echo "mirrors: {locked: 'file://$here/mirror'}" > config/mirrors.yaml
echo "bootstrap: {enable: false}" > config/bootstrap.yaml
echo "concretizer: {reuse: false, targets: {host_compatible: false}}" > config/concretizer.yaml

if [ "$verb" = lock ]; then
    mkdir -p /opt/solved
    for cpu in $cpus; do
        mkdir "$cpu"
        cp spack.yaml "$cpu/"
        echo "packages: {all: {require: target=$cpu}}" > config/packages.yaml
        spack -e "$here/$cpu" concretize
        spack -e "$here/$cpu" python archives.py >> /opt/solved/archives
        cp "$cpu/spack.lock" "/opt/solved/$cpu"
    done
else
    while read -r name path; do
        mkdir -p "mirror/${path%/*}"
        mv "$name" "mirror/$path"
    done < archives
    mkdir env
    mv spack.yaml spack.lock env/
    spack -e "$here/env" env view enable /opt/view
    spack -e "$here/env" install --fail-fast
    spack gc -y
    # what is about this build and not about the packages
    find /opt/spack -path '*/.spack/*' ! -name spec.json ! -type d -delete
    find /opt/spack -path '*/.spack/*' -type d -empty -delete
    rm -rf /opt/spack/.spack-db /opt/view/.spack
fi
