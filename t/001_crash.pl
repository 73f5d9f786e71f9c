# A crash loses every heartbeat, for they live in memory only.  It must not
# cost a living leader its term, nor let anybody else in while that leader
# may still count on its lease: after the crash each lease counts as renewed
# at the start of the new epoch.  What was committed stays, what was not is
# gone.  Told twice: the server is stopped at once and comes back only after
# a lease has run out; and one of its backends is killed under it.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $long = 600_000;    # outlives the test
my $short = 1500;      # shorter than the outage

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;

# An asynchronous commit would not reach the disk before the crash, so the
# test sees whether transitions are durable.
$node->append_conf('postgresql.conf', qq{
restart_after_crash = on
wal_writer_delay = 10s
leader_election.sweep_interval = 1h
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

# Leave a transaction open in a session of its own; returns the session and
# the backend's pid.
sub open_transaction
{
	my ($name, $sql) = @_;
	my ($out, $err) = ('', '');
	my @statements = (
		'BEGIN', 'SET LOCAL leader_election.allow_in_transaction = on',
		$sql, 'SELECT pg_sleep(3600)');
	my $session = IPC::Run::start(
		[
			'psql', '-XAtq', '-d',
			$node->connstr('postgres') . " application_name=$name",
			map { ('-c', $_) } @statements
		],
		'>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));

	$node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity
		  WHERE application_name = '$name' AND wait_event = 'PgSleep'")
	  or die "session $name did not come so far";
	return (
		$session,
		$node->safe_psql('postgres',
			"SELECT pid FROM pg_stat_activity WHERE application_name = '$name'"
		));
}

sub token
{
	my ($lock, $instance) = @_;
	return $node->safe_psql('postgres',
		"SELECT le_token($lock, '$instance')");
}

# $crash is called with the pid of a backend and with the time at which the
# short leases have run out, and returns when the server answers again.
sub survives
{
	my ($crash, $base) = @_;
	my ($living, $renewing, $dead, $releasing, $beginning, $released, $last) =
	  map { $base + $_ } 1 .. 7;

	is( $node->safe_psql('postgres', qq{
			SELECT le_try_acquire($living, 'a', $long), le_renew($living, 'a');
			SELECT le_try_acquire($releasing, 'a', $long),
				   le_renew($releasing, 'a');
			SELECT le_try_acquire($released, 'a', $long);}),
		"t|t\nt|t\nt",
		'leases before the crash');
	my $living_token = token($living, 'a');
	my $releasing_token = token($releasing, 'a');
	my $released_token = token($released, 'a');
	my $epoch = $node->safe_psql('postgres', 'SELECT epoch FROM le_info()');

	my ($release, undef) =
	  open_transaction('release', "SELECT le_release($releasing, 'a')");
	my ($begin, $pid) = open_transaction('begin',
		"SELECT le_try_acquire($beginning, 'a', $long)");

	is( $node->safe_psql('postgres', qq{
			SELECT le_try_acquire($renewing, 'b', $short);
			SELECT le_try_acquire($dead, 'b', $short);}),
		"t\nt",
		'short leases before the crash');
	my $renewing_token = token($renewing, 'b');
	my $dead_token = token($dead, 'b');
	my $over = $node->safe_psql('postgres', qq{
		SELECT extract(epoch FROM max(expires_at)) FROM leader_lease
		 WHERE id IN ($renewing, $dead)});

	# Nothing is written after these two, so nothing else flushes them.
	is( $node->safe_psql('postgres', qq{
			SET synchronous_commit = off;
			SELECT le_release($released, 'a');
			SELECT le_try_acquire($last, 'a', $long);}),
		"t\nt",
		'last transitions before the crash, committed asynchronously');
	my $last_token = token($last, 'a');

	$crash->($pid, $over);
	$_->finish foreach ($release, $begin);

	# The first call begins the epoch.  All in one statement, so that no slow
	# machine lets a short lease run out in between.
	is( $node->safe_psql('postgres', qq{
			SELECT le_try_acquire($renewing, 'c', $short),
				   le_try_acquire($dead, 'c', $short),
				   le_renew($renewing, 'b', $renewing_token),
				   le_token($renewing, 'b') = $renewing_token,
				   le_try_acquire($renewing, 'c', $short)}),
		'f|f|t|t|f',
		'a lease that ran out meanwhile is protected, and can be renewed');

	isnt($node->safe_psql('postgres', 'SELECT epoch FROM le_info()'),
		$epoch, 'a new epoch');

	is( $node->safe_psql('postgres', qq{
			SELECT le_leader($living), le_token($living, 'a') = $living_token,
				   le_is_leader($living, 'a', $living_token),
				   le_try_acquire($living, 'c');
			SELECT state, renewals FROM leader_lease WHERE id = $living;
			SELECT le_renew($living, 'a', $living_token),
				   le_token($living, 'a') = $living_token,
				   le_try_acquire($living, 'c');
			SELECT state, renewals FROM leader_lease WHERE id = $living;}),
		"a|t|t|f\nrestarted|0\nt|t|f\nlive|1",
		'the leader still leads, in the same term');

	is( $node->safe_psql('postgres', qq{
			SELECT le_leader($releasing);
			SELECT le_try_acquire($releasing, 'c'),
				   le_renew($releasing, 'a', $releasing_token)}),
		"a\nf|t",
		'an uncommitted release has not happened');

	is( $node->safe_psql('postgres', qq{
			SELECT le_leader($beginning) IS NULL,
				   le_renew($beginning, 'a'),
				   le_try_acquire($beginning, 'c', $long);}),
		't|f|t',
		'an uncommitted term has not begun');

	is( $node->safe_psql('postgres', qq{
			SELECT le_leader($released) IS NULL,
				   le_renew($released, 'a', $released_token),
				   le_try_acquire($released, 'c', $long),
				   le_token($released, 'c') > $released_token}),
		't|f|t|t',
		'a committed release stays released, the next token is larger');

	is( $node->safe_psql('postgres', qq{
			SELECT le_token($last, 'a') = $last_token,
				   le_try_acquire($last, 'c'),
				   le_renew($last, 'a', $last_token)}),
		't|f|t',
		'a committed term stays');

	ok( $node->poll_query_until('postgres',
			"SELECT le_try_acquire($dead, 'c', $long)"),
		'a leader that does not come back is replaced');
	is( $node->safe_psql('postgres', qq{
			SELECT le_token($dead, 'c') > $dead_token,
				   le_renew($dead, 'b', $dead_token), le_renew($dead, 'b')}),
		't|f|f',
		'by a term with a larger token; the old one is deposed');

	# The clocks' rates may differ a little, hence one per mill.
	cmp_ok(
		$node->safe_psql('postgres', qq{
			SELECT extract(epoch FROM created_at - epoch_start) * 1000
			  FROM leader_lease, le_info() WHERE id = $dead}),
		'>=', $short * 11 / 10 * 0.999,
		'and not before one lease has passed since the start of the epoch');
	return;
}

subtest 'immediate stop, and an outage longer than a lease' => sub {
	survives(
		sub {
			my ($pid, $over) = @_;

			$node->stop('immediate');
			usleep(10_000) while time() <= $over;
			$node->start;
		},
		100);
};

subtest 'a backend is killed' => sub {
	survives(
		sub {
			my ($pid, $over) = @_;
			my $offset = -s $node->logfile;

			ok(kill('KILL', $pid) == 1, 'killed');
			$node->wait_for_log(
				qr/all server processes terminated; reinitializing/, $offset);
			$node->poll_query_until('postgres', 'SELECT 1', '1')
			  or die 'the server did not come back';
		},
		200);
};

$node->stop;
done_testing();
