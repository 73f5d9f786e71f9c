# shellcheck shell=bash disable=SC2154    # lib.sh has more of the variables
# The other servers that scripts/test can run on: other versions, out of
# Debian's other releases, and one with assertions.  Sourced, after lib.sh.
#
# Making one takes minutes, so it is kept in $cache.  The system stays as it
# is: the server of another release lives in a directory with a Debian of its
# own, and what is mounted in there is mounted for one process only.

if [ "$(id -u)" = 0 ]; then
	cache=/var/cache/leader_election
else
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/leader_election
fi
cache=$(realpath -m "${LE_CACHE:-$cache}")
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
private=()           # put after apt-get: use the sources of private_update
in_debian=()         # put before a command: run it in the Debian of enter_debian

# ---- The cache ----

# Make the directory $cache/$1, unless it is there, by a command whose last
# argument is a directory to make.  That one is renamed when it is complete;
# what an interrupted run has left is made anew.
make_cached() {
	local name=$1 new=$cache/$1.new
	shift
	[ ! -d "$cache/$name" ] || return 0
	mkdir -p "$cache"
	exec 9> "$cache/lock"
	flock -n 9 || {
		echo "waiting for another run, which fills $cache"
		run_job flock 9
	}
	if [ ! -d "$cache/$name" ]; then
		echo "making $cache/$name, once"
		rm -rf --one-file-system "$new"
		"$@" "$new"
		mv -T "$new" "$cache/$name"
	fi
	exec 9>&-
}

remove_cache() {
	[ -d "$cache" ] || return 0
	! findmnt -rno TARGET | grep -F "$cache/" || die "something is mounted in $cache"
	rm -rf --one-file-system "$cache"/debian-* "$cache"/cassert-* "$cache/lock"
	rmdir --ignore-fail-on-non-empty "$cache"
}

# A step of making something: its output matters only if it fails.
step() {
	run_job timeout -k 10 1800 "$@" >> "$work/step.log" 2>&1 || {
		tail -n 40 "$work/step.log" >&2
		die "failed: $*"
	}
}

# ---- Debian's archive ----

# What apt knows about the archives of Debian that it is configured with.
debian_sources() {
	apt-get indextargets --format "$1" 'Created-By: Packages' 'Origin: Debian' 'Component: main' "${@:2}"
}

# Have apt-get and apt-cache, called with "${private[@]}", use the sources given
# by stdin instead of the system's.
private_update() {
	mkdir -p "$work/apt/state" "$work/apt/cache"
	cat > "$work/apt/sources.list"
	private=(-q -o Dir::Etc::SourceList="$work/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
		-o Dir::State="$work/apt/state" -o Dir::Cache="$work/apt/cache" -o Acquire::Languages=none)
	step apt-get "${private[@]}" update
}

# ---- Another version ----

# Does the running system have this version of the server, or offer it?  If
# not in the cache, that is: an answer without a question to the archive.
is_version_here() {
	[ ! -x "/usr/lib/postgresql/$1/bin/postgres" ] || return 0
	[ ! -d "$cache/debian-$1" ] || return 1
	! can_install || update_lists
	apt-cache show "postgresql-$1" "postgresql-server-dev-$1" > /dev/null 2>&1
}

# Set $in_debian for the Debian in a directory; its /tmp is $work/tmp.
enter_debian() {
	mkdir -p "$work/tmp"
	chmod 1777 "$work/tmp"
	# shellcheck disable=SC2016    # the inner shell expands them
	in_debian=(env -i --default-signal PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
		LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
		unshare --mount sh -ec '
			root=$1
			mount -t proc proc "$root/proc"
			mount --rbind /dev "$root/dev"
			mount -t tmpfs tmpfs "$root/dev/shm"
			mount --bind "$2" "$root/tmp"
			shift 2
			exec chroot "$root" "$@"' sh "$1" "$work/tmp")
}

# Make a Debian with this version in the directory $2.
make_debian() {
	local version=$1 new=$2 mirror suite suites='oldstable stable testing unstable experimental'
	need debootstrap command -v debootstrap
	need debian-archive-keyring test -e "$keyring"
	install_missing
	update_lists    # apt knows an archive's origin from its lists
	mirror=$(debian_sources "\$(REPO_URI)" 'Label: Debian' | sed -n 1p)
	[ -n "$mirror" ] || die "apt's configuration names no mirror of Debian"

	for suite in $suites none; do
		[ "$suite" != none ] || die "none of Debian's releases has PostgreSQL $version: tried $suites"
		private_update <<< "deb [signed-by=$keyring] $mirror $suite main"
		! apt-cache "${private[@]}" show "postgresql-server-dev-$version" > /dev/null 2>&1 || break
	done

	# experimental is no release: what it has not got comes from unstable
	step unshare --mount debootstrap --variant=minbase --keyring="$keyring" \
		"${suite/experimental/unstable}" "$new" "$mirror"
	# start no server, make no cluster
	printf '#!/bin/sh\nexit 101\n' > "$new/usr/sbin/policy-rc.d"
	chmod +x "$new/usr/sbin/policy-rc.d"
	mkdir "$new/etc/postgresql-common"
	echo 'create_main_cluster = false' > "$new/etc/postgresql-common/createcluster.conf"
	enter_debian "$new"
	if [ "$suite" = experimental ]; then
		echo "deb $mirror experimental main" > "$new/etc/apt/sources.list.d/experimental.list"
		# a mirror's lists are good for as long as they are for the system
		apt-config dump Acquire::Check-Valid-Until Acquire::Check-Date > "$new/etc/apt/apt.conf.d/valid"
		# this version's packages, libpq among them, and no others
		printf '%s\n' "Package: src:postgresql-$version" 'Pin: release a=experimental' 'Pin-Priority: 990' \
			> "$new/etc/apt/preferences.d/experimental"
		step "${in_debian[@]}" apt-get update
	fi
	step "${in_debian[@]}" apt-get install -y -q --no-install-recommends \
		"postgresql-$version" "postgresql-server-dev-$version" gcc libc6-dev make \
		libipc-run-perl libfaketime pgbouncer python3-psycopg2 mandoc
	step "${in_debian[@]}" apt-get clean
}

# Run scripts/test with these arguments in the Debian that has a version.
test_in_debian() {
	local version=$1
	shift
	[ "$(id -u)" = 0 ] ||
		die "PostgreSQL $version is not in this release; to test on it, run scripts/test as root"
	make_cached "debian-$version" make_debian "$version"
	enter_debian "$cache/debian-$version"
	copy_sources "$work/tmp/src"
	run_job "${in_debian[@]}" /tmp/src/scripts/test "$@"
}

# ---- Assertions ----

# Unpack the server's source, the newest that the archive still has, in $work/pg.
fetch_server_source() {
	local release
	private_update < <(debian_sources "deb-src [signed-by=$keyring] \$(REPO_URI) \$(RELEASE) main")
	for release in $(apt-cache "${private[@]}" showsrc --only-source "postgresql-$1" |
		sed -n 's/^Version: //p' | sort -rVu); do
		if (cd "$work/apt" && apt-get "${private[@]}" source --only-source --download-only "postgresql-$1=$release") \
			>> "$work/step.log" 2>&1; then
			mkdir "$work/pg"
			tar -C "$work/pg" --strip-components=1 -xf "$work/apt/postgresql-$1_${release%-*}.orig.tar."*
			return
		fi
	done
	tail -n 40 "$work/step.log" >&2
	die "could not fetch the source of PostgreSQL $1"
}

# Make a server with assertions, and what tests need of it, in the directory $3.
make_cassert() {
	local version=$1 prefix=$2 new=$3 directory
	need gcc command -v gcc
	need libc6-dev test -e /usr/include/stdlib.h
	need make command -v make
	need bison command -v bison
	need flex command -v flex
	need bzip2 command -v bzip2
	need libipc-run-perl perl -MIPC::Run -e 1
	need debian-archive-keyring test -e "$keyring"
	install_missing
	fetch_server_source "$version"
	[ "$(id -u)" != 0 ] || chown -R "$user:" "$work"
	step "${as_user[@]}" env -C "$work/pg" CFLAGS=-O1 ./configure -q --prefix="$prefix" \
		--enable-cassert --enable-debug --enable-tap-tests --with-extra-version=' (assertions)' \
		--without-icu --without-readline --without-zlib
	for directory in . contrib/postgres_fdw contrib/dblink contrib/pg_prewarm; do
		# it is going to be copied: its programs must find its libraries
		step "${as_user[@]}" make -s -j "$(nproc)" -C "$work/pg/$directory" rpathdir="\$\$ORIGIN/../lib"
		step "${as_user[@]}" make -s -C "$work/pg/$directory" rpathdir="\$\$ORIGIN/../lib" DESTDIR="$work/to" install
	done
	cp -a "$work/to$prefix" "$new"
	rm -rf "$work/pg" "$work/to"
}

# Set PG_CONFIG to that of a server with assertions.
use_cassert() {
	local version
	version=$(offered_version) || {
		update_lists
		version=$(offered_version)
	} || die "this system offers no PostgreSQL"
	make_cached "cassert-$version" make_cassert "$version" "$cache/cassert-$version"
	export PG_CONFIG=$cache/cassert-$version/bin/pg_config
}
