# shellcheck shell=bash
# What scripts/test and scripts/demo share.  Sourced, not run.
#
# The system stays as it is, but for Debian packages that were missing: the
# server's files are copied into a temporary directory, where PostgreSQL finds
# its own parts relative to its programs, and the extension is built there and
# installed into that copy.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
missing=()           # Debian packages to install
has_packages=        # this run has the lock of lock_packages
lists_are_fresh=     # apt-get update has run
saved_conf=          # the copy of createcluster.conf, while ours is in place
policy=/usr/sbin/policy-rc.d
our_policy=          # $policy is ours
work=                # the temporary directory
user=                # who owns it, the servers and the tests: never root
as_user=()           # put before a command: run it as $user, in $work
bin=                 # the programs of the server's copy
server_version=      # Debian's server to use, if not the newest installed one
job=                 # the process that run_job runs just now

# The caller's settings are for the caller's servers.
for variable in "${!PG@}" MAKEFLAGS MAKELEVEL MFLAGS; do
	[ "$variable" = PG_CONFIG ] || unset "$variable"
done

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# Run a command in the background, because bash reacts to a signal only then.
run_job() {
	local status=0
	"$@" < /dev/null &
	job=$!
	wait "$job" || status=$?
	job=
	return "$status"
}

stop_job() {
	[ -n "$job" ] || return 0
	kill "$job" 2> /dev/null || true
	wait "$job" || true
}

# ---- Users ----

# Make $work, which nobody else may enter: our servers trust whoever reaches
# their sockets.  PostgreSQL refuses to run as root, so root's servers belong to
# nobody, who cannot touch a cluster that the machine may have.
make_work() {
	user=$(id -un)
	[ "$user" != root ] || user=nobody
	work=$(mktemp -d /tmp/le.XXXXXX)    # short: it is in the sockets' paths
	[ "$(id -u)" != 0 ] || chown "$user:" "$work"
	as_user=(env -C "$work" HOME="$work" TMPDIR="$work")
	if [ "$(id -u)" = 0 ]; then
		as_user=(setpriv "--reuid=$user" "--regid=$(id -g "$user")" --init-groups "${as_user[@]}")
	fi
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo -n "$@"
	fi
}

# ---- Packages ----

# What another run has half installed must not be taken for there: one at a time
# looks for what is missing, until install_missing is done.
lock_packages() {
	[ -z "$has_packages" ] && [ -d /var/lib/dpkg ] || return 0
	exec 8< /var/lib/dpkg
	flock -n 8 || {
		echo "waiting for another run, which installs packages"
		run_job flock 8
	}
	has_packages=yes
}

unlock_packages() {
	[ -z "$has_packages" ] || exec 8<&-
	has_packages=
}

# Note a package as missing if a command fails that needs it.
need() {
	local package=$1
	lock_packages
	shift
	"$@" > /dev/null 2>&1 || missing+=("$package")
}

can_install() {
	command -v apt-get > /dev/null && as_root true 2> /dev/null
}

apt_get() {
	as_root env DEBIAN_FRONTEND=noninteractive timeout 1200 \
		apt-get -y -q -o DPkg::Lock::Timeout=300 "$@" >> "$work/apt.log" 2>&1 < /dev/null
}

update_lists() {
	local held=$has_packages
	[ -z "$lists_are_fresh" ] || return 0
	lock_packages    # of two at once apt-get fails for one
	echo "reading the lists of packages (apt-get update)"
	apt_get update || true    # if this matters, the installation tells
	[ -n "$held" ] || unlock_packages
	lists_are_fresh=yes
}

apt_install() {
	update_lists
	apt_get install --no-install-recommends "$@" || {
		cat "$work/apt.log" >&2
		die "could not install $*"
	}
}

# Debian's server packages make and start a cluster "main" when they are
# installed.  Nobody asked for one here.
forbid_main_cluster() {
	local conf=/etc/postgresql-common/createcluster.conf
	apt_install postgresql-common    # brings the file
	as_root cp -p "$conf" "$work/createcluster.conf"
	saved_conf=$work/createcluster.conf
	echo 'create_main_cluster = false' | as_root tee -a "$conf" > /dev/null
}

# Nor has anybody asked for a pooler or whatever else a package would start.
forbid_services() {
	[ ! -e "$policy" ] || return 0
	our_policy=yes
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" > /dev/null
	as_root chmod 755 "$policy"
}

# Undo both.
allow_services() {
	[ -z "$saved_conf" ] || as_root cp -p "$saved_conf" /etc/postgresql-common/createcluster.conf
	[ -z "$our_policy" ] || as_root rm "$policy"
	saved_conf=
	our_policy=
}

# How much is to be fetched and installed, as apt-get puts it
tell_size() {
	{ as_root env LC_ALL=C timeout 60 apt-get install --no-install-recommends --assume-no "$@" || true; } 2> /dev/null |
		sed -n '/ newly installed,\|^Need to get\|^After this operation/s/^/    /p'
}

install_missing() {
	if [ ${#missing[@]} -eq 0 ]; then
		unlock_packages
		return
	fi
	if ! can_install; then
		echo "Not installed: ${missing[*]}" >&2
		die "please run: sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
	fi
	update_lists
	echo "installing ${missing[*]}; this may take a minute or two"
	tell_size "${missing[@]}"
	forbid_services
	case " ${missing[*]}" in
		*' postgresql-'[0-9]*) forbid_main_cluster ;;
	esac
	apt_install "${missing[@]}"
	allow_services
	unlock_packages
	missing=()
}

# ---- The server and the extension ----

installed_version() {
	find /usr/lib/postgresql -path '*/bin/postgres' 2> /dev/null | cut -d / -f 5 | sort -n | tail -n 1
}

offered_version() {
	apt-cache depends postgresql 2> /dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p'
}

# Set $server_bin to the directory of the server's programs and note what is
# missing to build for it: PG_CONFIG's, $server_version, the newest installed,
# Debian's.
need_server() {
	need make command -v make
	need gcc command -v gcc
	need libc6-dev test -e /usr/include/stdlib.h
	if [ -n "${PG_CONFIG:-}" ]; then
		server_bin=$("$PG_CONFIG" --bindir) || die "PG_CONFIG=$PG_CONFIG does not work"
		[ -x "$server_bin/postgres" ] || die "there is no server in $server_bin"
		[ -e "$("$PG_CONFIG" --pgxs)" ] || die "the files to build extensions for $server_bin are not installed"
		return
	fi

	local version=$server_version
	[ -n "$version" ] || version=$(installed_version) || true
	if [ -z "$version" ]; then
		! can_install || update_lists
		version=$(offered_version) || true
	fi
	if [ -z "$version" ]; then
		missing+=(postgresql postgresql-server-dev-all)
		! can_install || die "found neither a PostgreSQL server nor a package of one; set PG_CONFIG"
		return
	fi
	server_bin=/usr/lib/postgresql/$version/bin
	need "postgresql-$version" test -e "$server_bin/postgres"
	need "postgresql-server-dev-$version" test -e "/usr/include/postgresql/$version/server/postgres.h"
}

# Copy the server into $work and set $bin.
copy_server() {
	local copy=$work/server version
	mkdir "$copy"
	case $server_bin in
		/usr/lib/postgresql/*/bin)
			version=${server_bin#/usr/lib/postgresql/}
			version=${version%/bin}
			mkdir -p "$copy/usr/lib/postgresql" "$copy/usr/share/postgresql" "$copy/usr/include"
			cp -a "/usr/lib/postgresql/$version" "$copy/usr/lib/postgresql/"
			cp -a "/usr/share/postgresql/$version" "$copy/usr/share/postgresql/"
			cp -a /usr/include/postgresql "$copy/usr/include/"
			bin=$copy$server_bin
			;;
		/bin | /usr/bin)
			die "cannot copy a server that is not in a directory of its own: $server_bin"
			;;
		*)
			cp -a "${server_bin%/*}/." "$copy/"
			bin=$copy/${server_bin##*/}
			;;
	esac
}

# The files of the checkout, the changed and the new ones too, but nothing
# that is ignored: what somebody built for another server must not be used.
list_sources() {
	local file
	git -c safe.directory="$top" -C "$top" ls-files -z --cached --others --exclude-standard |
		while IFS= read -r -d '' file; do
			[ ! -e "$top/$file" ] || printf '%s\0' "$file"    # deleted, not committed
		done
}

copy_sources() {
	local to=$1
	mkdir "$to"
	if [ -e "$top/.git" ] && command -v git > /dev/null; then
		list_sources | tar -C "$top" --null -T - -cf - | tar -C "$to" -xf -
	else
		tar -C "$top" --exclude=./.git --exclude='*.o' --exclude='*.bc' --exclude='*.so' -cf - . |
			tar -C "$to" -xf -
	fi
}

# Build with warnings as errors and install into the copy of the server;
# arguments are for make.
compile() {
	"${as_user[@]}" make -s -C "$work/src" PG_CONFIG="$bin/pg_config" with_llvm=no COPT=-Werror "$@" clean install \
		> "$work/build.log" 2>&1 < /dev/null || {
		cat "$work/build.log" >&2
		die "the build failed"
	}
}

# The client program, against the libpq of the server's copy if it has one.
compile_leaderctl() {
	local lib
	lib=$("$bin/pg_config" --libdir)
	"${as_user[@]}" make -s -C "$work/src/leaderctl" PG_CONFIG="$bin/pg_config" \
		COPT="-Werror -Wl,-rpath,$lib" > "$work/leaderctl.log" 2>&1 < /dev/null || {
		cat "$work/leaderctl.log" >&2
		die "the build of leaderctl failed"
	}
}

# Copy server and sources, and build.  Patches that are given as arguments
# change the copy of the sources first.
build() {
	local patch
	copy_server
	copy_sources "$work/src"
	for patch in "$@"; do
		patch -s -d "$work/src" -p1 < "$patch" || die "$patch does not fit"
	done
	[ "$(id -u)" != 0 ] || chown -R "$user:" "$work"
	echo "building for $("$bin/postgres" --version)"
	compile
}

# ---- Clusters ----

# Make the cluster $work/$1, its configuration untouched but for the lines
# given as further arguments.
make_cluster() {
	local name=$1
	shift
	"${as_user[@]}" "$bin/initdb" -D "$work/$name" -U postgres -A trust -E UTF8 --no-locale --no-sync \
		> "$work/$name.initdb" 2>&1 || {
		cat "$work/$name.initdb" >&2
		die "initdb failed"
	}
	[ $# -eq 0 ] || printf '%s\n' "$@" >> "$work/$name/postgresql.conf"
}

# Start the cluster $1, reachable only through a socket in $work.
start_server() {
	local name=$1 port=$2
	"${as_user[@]}" "$bin/pg_ctl" -D "$work/$name" -w -s -l "$work/$name.log" \
		-o "-p $port -c listen_addresses='' -c unix_socket_directories='$work'" start < /dev/null || {
		tail -n 30 "$work/$name.log" >&2
		die "the server did not start"
	}
}

stop_server() {
	"${as_user[@]}" "$bin/pg_ctl" -D "$work/$1" -w -s -m "$2" stop < /dev/null
}

# Stop every server whose data are in $work, those of the TAP tests too.
stop_servers() {
	local file
	find "$work" -name postmaster.pid | while IFS= read -r file; do
		# one that is stopped at once leaves shared memory behind
		"${as_user[@]}" "$bin/pg_ctl" -D "${file%/*}" -w -s -m fast stop < /dev/null ||
			"${as_user[@]}" "$bin/pg_ctl" -D "${file%/*}" -w -s -m immediate stop < /dev/null || true
	done
}

# Leave nothing behind.
clean_up() {
	allow_services
	[ -z "$bin" ] || stop_servers
	rm -rf "$work"
}
