# Clocks run at different rates.  Whoever disciplines a system's clock changes
# its rate, chronyd by up to 1/12, and so that of CLOCK_MONOTONIC and
# CLOCK_BOOTTIME; on the server, on the client, or on both.  No successor may
# lead before the deadline that the first leader counts by its own clock.
#
# Server and client get a clock that runs at the wrong rate; the test looks at
# CLOCK_MONOTONIC_RAW, which nobody disciplines.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;
use Time::HiRes;

my $lease = 2000;
my $dir = $PostgreSQL::Test::Utils::tmp_check;

append_to_file("$dir/rate.c", <<'C');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	static int	(*real) (clockid_t, struct timespec *);
	static long num;
	int			result;

	if (real == NULL)
	{
		num = atol(getenv("RATE_IN_TWELFTHS"));
		real = (int (*) (clockid_t, struct timespec *))
			dlsym(RTLD_NEXT, "clock_gettime");
	}
	result = real(id, ts);
	if (result == 0 && (id == CLOCK_MONOTONIC || id == CLOCK_BOOTTIME))
	{
		__int128	ns = ((__int128) ts->tv_sec * 1000000000 + ts->tv_nsec) * num / 12;

		ts->tv_sec = ns / 1000000000;
		ts->tv_nsec = ns % 1000000000;
	}
	return result;
}
C
command_ok(
	[ 'gcc', '-O1', '-shared', '-fPIC', '-o', "$dir/rate.so", "$dir/rate.c", '-ldl' ],
	'a clock that runs at another rate');

# What a client does: a clock reading, a call, and work until its deadline has
# passed.  Prints when it has found for the last time that it has not, by the
# clock that nobody disciplines.  It is connected before, because the time from
# the reading to the call hides what is wrong with the clocks.
my $client = <<'PERL';
use IPC::Open2;
use Time::HiRes qw(clock_gettime usleep);
my ($connstr, $lock, $lease) = @ARGV;
open2(my $from, my $to, 'psql', '-XAtq', '-d', $connstr);
print $to "SELECT 1;\n";
<$from> eq "1\n" or die 'not connected';
my $sent = clock_gettime(7);    # CLOCK_BOOTTIME
print $to "SELECT le_try_acquire($lock, 'a', $lease);\n";
my $said = <$from>;
$said eq "t\n" or die "not elected: $said";
my $led;
for (;;)
{
	my $now = clock_gettime(4);    # CLOCK_MONOTONIC_RAW
	last if clock_gettime(7) >= $sent + $lease / 1000;
	$led = $now;
	usleep(1000);
}
printf "%.6f\n", $led;
close $to;
PERL

# With whom may the clock be wrong by how much?  In twelfths.
foreach my $case ([ 13, 11 ], [ 11, 11 ], [ 13, 13 ], [ 11, 13 ])
{
	my ($server_rate, $client_rate) = @$case;

	subtest "server's clock at $server_rate/12, client's at $client_rate/12" =>
	  sub {
		my $node = PostgreSQL::Test::Cluster->new("s${server_rate}c$client_rate");
		$node->init;
		{
			local $ENV{LD_PRELOAD} = "$dir/rate.so";
			local $ENV{RATE_IN_TWELFTHS} = $server_rate;
			$node->start;
		}
		$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

		my ($led, $err) = ('', '');
		my $leader;
		{
			local $ENV{LD_PRELOAD} = "$dir/rate.so";
			local $ENV{RATE_IN_TWELFTHS} = $client_rate;
			$leader = IPC::Run::start(
				[ $^X, '-e', $client, $node->connstr('postgres'), 1, $lease ],
				'>', \$led, '2>', \$err,
				IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		}
		ok( $node->poll_query_until('postgres', "SELECT le_leader(1) = 'a'"),
			'a leader');

		# asks on one connection, as often as it can
		my $successor = Session->new($node->connstr('postgres'));
		my $asked = 0;
		$asked++ while $successor->say("SELECT le_try_acquire(1, 'b')") eq 'f';
		my $leads = Time::HiRes::clock_gettime(4);
		cmp_ok($asked, '>', 0, 'a successor had to wait');

		$leader->finish;
		is($err, '', 'the leader was elected');
		cmp_ok($led, '<=', $leads,
			'the first leader has stopped before the successor leads');
		$successor->quit;
		$node->stop;
	  };
}

done_testing();
