# The system clock jumps, and nobody notices.  Leases are counted by the
# monotonic clock, so an hour forward expires none and an hour backward
# lengthens none, also for those who restart the server meanwhile.  Only
# tokens look at the system clock, and they grow all the same.
#
# Needs Debian's libfaketime.  The servers' wall clock is that of this file
# moved by what the file says; the monotonic clock is left alone.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my ($library) = glob('/usr/lib/*/faketime/libfaketime.so.1');
plan skip_all => 'libfaketime is not installed' unless $library;

my $long = 600_000;    # outlives the test
my $short = 2000;

my $offset_file = "${PostgreSQL::Test::Utils::tmp_check}/clock";

# Move the servers' wall clock to so many seconds from the real time.
sub set_clock
{
	my ($seconds) = @_;
	# renamed, so that nobody reads half of it
	append_to_file("$offset_file.new", sprintf("%+d\n", $seconds));
	rename("$offset_file.new", $offset_file) or die "rename: $!";
	return;
}
set_clock(0);

# Only the server is to be fooled, not the test.
$ENV{LD_PRELOAD} = $library;
$ENV{FAKETIME_TIMESTAMP_FILE} = $offset_file;
$ENV{FAKETIME_NO_CACHE} = 1;
$ENV{FAKETIME_DONT_FAKE_MONOTONIC} = 1;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf',
	'leader_election.sweep_interval = 1h');
$node->start;
delete $ENV{LD_PRELOAD};
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

sub seconds { return clock_gettime(CLOCK_MONOTONIC) }

# How far is the server's clock from ours, in hours?
sub server_hours
{
	my $there = $node->safe_psql('postgres',
		'SELECT extract(epoch FROM clock_timestamp())');
	return sprintf('%.0f', ($there - time()) / 3600);
}

my $newest = 0;

# Begin a term, whose token must be larger than all before.
sub begin_term
{
	my ($lock, $ms, $name) = @_;
	my $token = $node->safe_psql('postgres', qq{
		SELECT le_try_acquire($lock, 'a', $ms);
		SELECT le_token($lock, 'a');});
	ok($token =~ s/^t\n//, $name);
	cmp_ok($token, '>', $newest, 'its token is larger than any before');
	return $newest = $token;
}

# The lease of the lock lasts as long as it must, whatever the wall clock does
# meanwhile, and then ends.  It has been renewed after a time of ours.
sub runs_out
{
	my ($lock, $renewed_after) = @_;

	ok($node->poll_query_until('postgres', "SELECT le_leader($lock) IS NULL"),
		'a lease runs out');
	cmp_ok(
		seconds() - $renewed_after,
		'>=', $short * 11 / 10 / 1000 * 0.999,
		'it lasts its time');
	return;
}

is(server_hours(), 0, 'the clock');
my $leader = begin_term(1, $long, 'a term');
is($node->safe_psql('postgres', "SELECT le_renew(1, 'a')"), 't', 'renewed');
begin_term(2, $long, 'another, without a heartbeat');

foreach my $hours (1, -1, 0, -2, 2)
{
	subtest "to $hours" => sub {
		my $lock = 100 + $hours;
		my $before = seconds();
		begin_term($lock, $short, 'a short term');

		set_clock(3600 * $hours);
		is(server_hours(), $hours, 'the clock has been stepped');

		is( $node->safe_psql('postgres', qq{
				SELECT le_leader(1), le_is_leader(1, 'a', $leader),
					   le_try_acquire(1, 'b'), le_renew(1, 'a', $leader),
					   le_leader(2), le_try_acquire(2, 'b');
				SELECT count(*) FILTER (WHERE state = 'live'),
					   bool_and(remaining_ms BETWEEN 1 AND $long * 11 / 10),
					   bool_and(expires_at BETWEEN clock_timestamp()
							AND clock_timestamp() + $long * 11 / 10 * interval '1 ms')
				  FROM leader_lease WHERE id IN (1, 2);}),
			"a|t|f|t|a|f\n2|t|t",
			'the leaders lead, nobody else does, and the view says so');
		runs_out($lock, $before);
		begin_term(200 + $hours, $long, 'the next term');
	};
}

foreach my $hours (-3, 3, 0)
{
	subtest "to $hours over a restart" => sub {
		my $lock = 300 + $hours;
		begin_term($lock, $short, 'a short term');
		is($node->safe_psql('postgres', "SELECT le_renew($lock, 'a')"),
			't', 'renewed');

		$node->stop;
		set_clock(3600 * $hours);
		$ENV{LD_PRELOAD} = $library;
		$node->start;
		delete $ENV{LD_PRELOAD};
		my $before = seconds();
		is( $node->safe_psql('postgres', qq{
				SELECT le_try_acquire(1, 'b'), le_try_acquire($lock, 'b'),
					   le_renew(1, 'a', $leader), le_leader(2),
					   le_leader($lock)}),
			'f|f|t|a|a',
			'each lease counts from the restart');
		is(server_hours(), $hours, 'the clock has been stepped');
		runs_out($lock, $before);
		begin_term(400 + $hours, $long, 'the next term');
	};
}

# A hold is counted by the lease clock, and across a restart by the wall clock;
# but that may be wrong, and a hold lasts no longer than it was meant to.
sub restart_at
{
	my ($hours) = @_;
	$node->stop;
	set_clock(3600 * $hours);
	$ENV{LD_PRELOAD} = $library;
	$node->start;
	delete $ENV{LD_PRELOAD};
	return;
}

my $year = 365 * 24;
sub rest_of_hold
{
	my ($lock) = @_;
	return $node->safe_psql('postgres',
		"SELECT coalesce((SELECT state || ' ' || round(remaining_ms / 10000.0) FROM leader_lease WHERE id = $lock), 'none')");
}

foreach my $hours ($year, -$year)
{
	subtest "a hold, to $hours" => sub {
		my $lock = 500 + ($hours > 0);
		my $then = $hours > 0 ? 'none' : 'held 60';
		begin_term($lock, $long, 'a term');
		begin_term($lock + 10, $long, 'another');
		set_clock(3600 * $hours);
		is(server_hours(), $hours, 'the clock has been stepped');
		is($node->safe_psql('postgres', "SELECT le_release($lock, 'a', hold_ms => $long)"), 't', 'held');
		is(rest_of_hold($lock), 'held 60', 'by the lease clock');
		set_clock(0);

		restart_at($hours);
		is($node->safe_psql('postgres', "SELECT le_leader($lock + 10)"), 'a', 'a term of an earlier life');
		is($node->safe_psql('postgres', "SELECT le_release($lock + 10, 'a', hold_ms => $long)"), 't', 'held');
		is(rest_of_hold($lock + 10), $then, 'by its age as the wall clock has it, and not for longer than a hold');
		is(rest_of_hold($lock), $hours > 0 ? 'expired 0' : 'held 60', 'a hold of an earlier life');
		restart_at(0);
	};
}

$node->stop;
done_testing();
