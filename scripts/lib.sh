# shellcheck shell=bash
# What scripts/test and scripts/demo share.  Sourced, not run.
#
# Nothing is installed into the system except Debian packages that are
# missing: the server's files are copied into a temporary directory, where
# PostgreSQL finds its own parts relative to its programs, and the extension
# is built and installed there.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# The version of PostgreSQL that this machine has or, if it has none, offers.
server_version() {
	local version
	version=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path '*/bin/postgres' 2> /dev/null |
		awk -F/ '$5 >= 15 { print $5 }' | sort -n | tail -n 1)
	if [ -z "$version" ]; then
		version=$(apt-cache depends postgresql 2> /dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p')
	fi
	echo "$version"
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo -n "$@"
	fi
}

# Install packages, telling what they are; a server that comes with them must
# not start a cluster of its own.
apt_install() {
	if [ "$(id -u)" != 0 ] && ! sudo -n true 2> /dev/null; then
		echo "Missing: $*" >&2
		die "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends $*"
	fi
	echo "installing $*"
	local config=/etc/postgresql-common/createcluster.conf made=
	if [ ! -e "$config" ]; then
		as_root mkdir -p "${config%/*}"
		echo 'create_main_cluster = false' | as_root tee "$config" > /dev/null
		made=yes
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
		-o Dpkg::Options::=--force-confold "$@" > "$work/apt.log" 2>&1 < /dev/null || {
		cat "$work/apt.log" >&2
		die "could not install $*"
	}
	if [ -n "$made" ]; then
		as_root rm -f "$config"
	fi
}

# Set $pg_config to the server to use, after installing what is missing.
# Arguments: further Debian packages, as name=file-that-shows-it-is-there.
need_packages() {
	local missing=() pair version
	for pair in make=/usr/bin/make gcc=/usr/bin/gcc "$@"; do
		[ -e "${pair#*=}" ] || missing+=("${pair%%=*}")
	done
	if [ -n "${PG_CONFIG:-}" ]; then
		pg_config=$PG_CONFIG
		[ -x "$pg_config" ] || die "PG_CONFIG=$pg_config is not a program"
	else
		version=$(server_version)
		if [ -z "$version" ]; then
			as_root apt-get update -qq > /dev/null 2>&1 || true
			version=$(server_version)
		fi
		[ -n "$version" ] || die "neither a PostgreSQL server nor a Debian package of one was found"
		pg_config=/usr/lib/postgresql/$version/bin/pg_config
		[ -e "/usr/lib/postgresql/$version/bin/postgres" ] || missing+=("postgresql-$version")
		[ -e "/usr/include/postgresql/$version/server/postgres.h" ] || missing+=("postgresql-server-dev-$version")
	fi
	if [ ${#missing[@]} -gt 0 ]; then
		if [ "$(id -u)" = 0 ] || sudo -n true 2> /dev/null; then
			as_root apt-get update -qq > /dev/null 2>&1 || true
		fi
		apt_install "${missing[@]}"
	fi
}

# Run a command as the user that owns the servers: not root.
as_user() {
	if [ "$(id -u)" = 0 ]; then
		runuser -u "$user" -- "$@"
	else
		"$@"
	fi
}

# Make $work, a temporary directory of the unprivileged user's.
make_work() {
	user=$(id -un)
	if [ "$user" = root ]; then
		user=nobody
	fi
	work=$(mktemp -d /tmp/le.XXXXXX)
	chmod 755 "$work"
}

# Copy the server into $work and build the extension there; sets $bin.
build() {
	local from root
	from=$("$pg_config" --bindir)
	root=$work/server
	mkdir -p "$root"
	case $from in
		/usr/lib/postgresql/*)
			local version=${from#/usr/lib/postgresql/}
			version=${version%%/*}
			mkdir -p "$root/usr/lib/postgresql" "$root/usr/share/postgresql" "$root/usr/include"
			cp -a "/usr/lib/postgresql/$version" "$root/usr/lib/postgresql/"
			cp -a "/usr/share/postgresql/$version" "$root/usr/share/postgresql/"
			cp -a /usr/include/postgresql "$root/usr/include/"
			bin=$root/usr/lib/postgresql/$version/bin
			;;
		*)
			cp -a "${from%/bin}/." "$root/"
			bin=$root/bin
			;;
	esac

	mkdir "$work/src"
	if git -C "$top" rev-parse --git-dir > /dev/null 2>&1; then
		(cd "$top" && git ls-files -z --cached --others --exclude-standard |
			while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
			tar --null -T - -cf -) | tar -xf - -C "$work/src"
	else
		(cd "$top" && tar -cf - .) | tar -xf - -C "$work/src"
	fi
	if [ "$(id -u)" = 0 ]; then
		chown -R "$user" "$work"
	fi

	echo "building for $("$bin/postgres" --version)"
	as_user make -s -C "$work/src" PG_CONFIG="$bin/pg_config" with_llvm=no COPT=-Werror all install > "$work/build.log" 2>&1 || {
		cat "$work/build.log" >&2
		die "the build failed"
	}
}

# Make a cluster in $work/$1 with an untouched configuration, but for the
# settings given as further arguments, and start it on a unix socket in $work.
start_cluster() {
	local name=$1 port=$2 setting
	shift 2
	as_user "$bin/initdb" -D "$work/$name" -U postgres -A trust -E UTF8 --no-locale -N > "$work/$name.initdb" ||
		die "initdb failed, see $work/$name.initdb"
	for setting in "$@"; do
		echo "$setting" | as_user tee -a "$work/$name/postgresql.conf" > /dev/null
	done
	start_server "$name" "$port"
}

start_server() {
	as_user "$bin/pg_ctl" -D "$work/$1" -w -s -l "$work/$1.log" \
		-o "-p $2 -c listen_addresses='' -c unix_socket_directories='$work'" start < /dev/null ||
		{
			tail -n 20 "$work/$1.log" >&2
			die "the server did not start"
		}
}

stop_server() {
	[ ! -e "$work/$1/postmaster.pid" ] ||
		as_user "$bin/pg_ctl" -D "$work/$1" -w -s -m "${2:-fast}" stop < /dev/null > /dev/null 2>&1 || true
}
