#!/bin/sh
# Unpacks Julia 1.5.3 into .cache/julia/, for the tests of bindings/julia; the program is .cache/julia/julia. It
# installs nothing into the system. Only the first run needs the network.
#
# Julia and its libraries are Debian packages of Debian 11, the last release that contains Julia. apt checks the
# signature of the package lists with Debian's keyring, and the packages with the checksums in the lists.
set -eu

cd "$(dirname "$0")/.."
version=1.5.3+dfsg-3
directory=$PWD/.cache/julia
if [ -x "$directory/julia" ] && [ "$(cat "$directory/stamp" 2>/dev/null)" = "$version" ]; then
    echo "fetch-julia: .cache/julia is up to date ($version)"
    exit 0
fi

for tool in apt-get dpkg; do
    command -v "$tool" >/dev/null ||
        { echo "fetch-julia: there is no $tool; install Julia 1.5 or newer and set JULIA to its program" >&2; exit 1; }
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || { echo "fetch-julia: there is no $keyring; install debian-archive-keyring" >&2; exit 1; }
# The mirror that the packages of this system come from.
mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
    sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\) .*/\2/p' | head -n 1)
[ -n "$mirror" ] || { echo "fetch-julia: apt has no source of packages" >&2; exit 1; }

echo "fetch-julia: downloading julia $version"
rm -rf "$directory"
apt=$directory/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$directory/root"
: >"$apt/status"
echo "deb [signed-by=$keyring] $mirror bullseye main" >"$apt/sources.list"
# The files of the system's apt stay as they are. The status file is empty, so that apt downloads every dependency.
apt_get() {
    apt-get -qq -o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt" \
        -o Dir::Cache::archives="$apt/archives" -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false \
        -o Debug::NoLocking=1 "$@" || { echo "fetch-julia: apt-get $1 failed" >&2; exit 1; }
}
apt_get update
apt_get install --yes --download-only --no-install-recommends "julia=$version"
for package in "$apt"/archives/*.deb; do
    # The system's C and C++ libraries are newer than those of Debian 11, and compatible with them.
    case $(basename "$package") in
        libc6_* | libcrypt1_* | libgcc-s1_* | libstdc++6_* | gcc-* | dpkg_* | tar_* | perl-* | debconf_*) ;;
        *) dpkg -x "$package" "$directory/root" ;;
    esac
done
rm -rf "$apt"
set -- "$directory"/root/usr/lib/*/julia
multiarch=$(basename "$(dirname "$1")")
cat >"$directory/julia" <<'SCRIPT'
#!/bin/sh
root=$(dirname "$(realpath "$0")")/root
SCRIPT
cat >>"$directory/julia" <<SCRIPT
lib=\$root/usr/lib/$multiarch
export LD_LIBRARY_PATH=\$lib:\$lib/julia:\$root/lib/$multiarch\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
exec "\$root/usr/bin/julia" "\$@"
SCRIPT
chmod +x "$directory/julia"
"$directory/julia" --startup-file=no -e 'exit(VERSION == v"1.5.3" ? 0 : 1)' ||
    { echo "fetch-julia: .cache/julia/julia does not run" >&2; exit 1; }
# The stamp is written last, so an interrupted run is repeated.
echo "$version" >"$directory/stamp"
echo "fetch-julia: .cache/julia is ready"
