# The sweeper comes by itself, one per database, tidies up after leases that
# are over, and leaves when there is nothing left to watch.  It is in nobody's
# way: whoever drops or copies its database, drops the extension, switches it
# off or terminates it succeeds at once, and the next transition starts
# another.  Where no worker can run, elections go on without.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;

# debug1 tells of each worker that is registered
$node->append_conf('postgresql.conf', q{
log_min_messages = debug1
leader_election.sweep_interval = 200ms
leader_election.sweep_jitter = 0
});
$node->start;

sub create_database
{
	my ($db) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION leader_election');
	return;
}

sub acquires
{
	my ($db, $lock, $name) = @_;
	is($node->safe_psql($db, "SELECT le_try_acquire($lock, 'a', $long)"),
		't', $name);
	return;
}

sub sweepers
{
	my ($db) = @_;
	return "FROM pg_stat_activity WHERE datname = '$db'
			AND backend_type = 'leader_election sweeper'";
}

# Wait for the database's sweeper; returns its pid.
sub sweeper_runs
{
	my ($db, $name) = @_;
	ok( $node->poll_query_until(
			$db, 'SELECT (SELECT array_agg(pid) '
			  . sweepers($db)
			  . ') = (SELECT ARRAY[sweeper_pid] FROM le_info())'),
		$name);
	return $node->safe_psql($db, 'SELECT sweeper_pid FROM le_info()');
}

sub sweeper_gone
{
	my ($db, $name) = @_;
	ok( $node->poll_query_until(
			'postgres', 'SELECT count(*) = 0 ' . sweepers($db)),
		$name);
	return;
}

# How many workers have been registered so far?  A new connection shows that
# the postmaster has seen all that was asked for before.
sub registrations
{
	$node->safe_psql('postgres', 'SELECT');
	return scalar(
		() = slurp_file($node->logfile) =~
		  /\bregistering background worker "leader_election sweeper/g);
}

create_database($_) foreach ('one', 'two');

subtest 'starts by itself' => sub {
	is( $node->safe_psql('one', 'SELECT sweeper_pid IS NULL FROM le_info()'),
		't',
		'no sweeper before the first transition');
	is($node->safe_psql('one', "SELECT le_renew(1, 'a')"),
		'f', 'a heartbeat is none');
	is(registrations(), 0, 'none has been started');
	acquires('one', 1, 'first acquisition');
	sweeper_runs('one', 'a sweeper, and le_info knows it');
	ok( $node->poll_query_until('postgres',
			"SELECT query LIKE 'sweeping%' AND state = 'idle'
			        AND xact_start IS NULL AND backend_xmin IS NULL "
			  . sweepers('one')),
		'says what it does, and holds no snapshot while asleep');
};

subtest 'one per database' => sub {
	my $pid = sweeper_runs('one', 'a sweeper');
	my $before = registrations();
	my @sessions;
	my @out;

	foreach my $lock (11 .. 16)
	{
		my $script = "SELECT le_try_acquire($lock, 'a', $long);
					  SELECT le_release($lock, 'a');\n" x 5;
		push @sessions,
		  IPC::Run::start(
			[ 'psql', '-XAtq', '-d', $node->connstr('one'), '-f', '-' ],
			'<',
			\$script,
			'>',
			\$out[$lock],
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	}
	$_->finish foreach @sessions;
	is($out[$_], "t\n" x 10, "session $_") foreach (11 .. 16);

	is(registrations(), $before, 'it stays alone');
	is(sweeper_runs('one', 'a sweeper'), $pid, 'it is the same');

	acquires('two', 1, 'an acquisition in another database');
	isnt(sweeper_runs('two', 'has a sweeper of its own'),
		$pid, 'which is another');
	is(sweeper_runs('one', 'the first has its own'), $pid, 'as before');
};

subtest 'sweeps' => sub {
	is( $node->safe_psql('one', qq{
			SELECT count(*) FILTER (WHERE le_try_acquire(id, 'dead', 1))
			  FROM generate_series(101, 120) AS id;
			SELECT le_renew(1, 'a')}),
		"20\nt",
		'leases of one millisecond');
	my $over = $node->safe_psql('one',
		'SELECT extract(epoch FROM max(expires_at)) FROM le_lease
		  WHERE lock_id > 100');

	ok( $node->poll_query_until('one',
			'SELECT count(*) = 0 FROM le_lease WHERE lock_id > 100'),
		'their rows go');
	cmp_ok(
		$node->safe_psql('one',
			"SELECT extract(epoch FROM clock_timestamp()) - $over"),
		'>=', 5, 'not before they have been over for five seconds');
	# two live leases, and six that were released before their time was over
	ok( $node->poll_query_until('one', 'SELECT entries = 8 FROM le_info()'),
		'and what was reserved for their heartbeats');
	is( $node->safe_psql('one', "SELECT le_renew(1, 'a'), le_leader(1)"),
		't|a',
		'a live lease stays');
};

subtest 'leaves an empty table' => sub {
	is($node->safe_psql('one', "SELECT le_release(1, 'a')"),
		't', 'last release');
	sweeper_gone('one', 'the sweeper leaves');
	is( $node->safe_psql('one', 'SELECT sweeper_pid IS NULL FROM le_info()'),
		't',
		'and le_info knows it');
	acquires('one', 1, 'next acquisition');
	sweeper_runs('one', 'another comes');
};

subtest 'is terminated' => sub {
	my $pid = sweeper_runs('one', 'a sweeper');
	my $before = registrations();

	is($node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)"),
		't', 'terminated');
	sweeper_gone('one', 'it is gone');
	is(registrations(), $before, 'and stays away');
	acquires('one', 2, 'next acquisition');
	isnt(sweeper_runs('one', 'another comes'), $pid, 'which is a new one');
};

subtest 'is switched off' => sub {
	$node->append_conf('postgresql.conf', 'leader_election.sweeper = off');
	$node->reload;
	sweeper_gone($_, "database $_ has none any more") foreach ('one', 'two');

	my $before = registrations();
	acquires('one', 3, 'acquisition without');
	is($node->safe_psql('one', "SELECT le_release(3, 'a')"),
		't', 'release without');
	is(registrations(), $before, 'none has been started');
	like($node->safe_psql('one', 'SELECT warnings FROM le_info()'),
		qr/leader_election\.sweeper is off/, 'le_info warns');

	$node->append_conf('postgresql.conf', 'leader_election.sweeper = on');
	$node->reload;
	acquires($_, 3, "switched on again, next acquisition in $_")
	  foreach ('one', 'two');
	sweeper_runs($_, "database $_ has one again") foreach ('one', 'two');
};

subtest 'the extension is dropped' => sub {
	$node->safe_psql('two', 'DROP EXTENSION leader_election');
	sweeper_gone('two', 'the sweeper leaves');
	$node->safe_psql('two', 'CREATE EXTENSION leader_election');
	acquires('two', 1, 'created anew, next acquisition');
	sweeper_runs('two', 'has a sweeper');
};

subtest 'the database is copied and dropped' => sub {
	$node->append_conf('postgresql.conf',
		'leader_election.sweep_interval = 1h');
	$node->reload;
	create_database('busy');
	acquires('busy', 1, 'acquisition');
	sweeper_runs('busy', 'a sweeper that sleeps for an hour');

	is($node->psql('postgres', 'CREATE DATABASE copy TEMPLATE busy'),
		0, 'copied');
	sweeper_gone('busy', 'the sweeper has left');
	acquires('busy', 2, 'acquisition');
	sweeper_runs('busy', 'another has come');

	is($node->psql('postgres', 'DROP DATABASE busy'), 0, 'dropped');
	sweeper_gone('busy', 'the sweeper has left');
};

subtest 'settings' => sub {
	# what is in a database's settings for its users must not end the sweeper
	$node->safe_psql('one', q{
		ALTER DATABASE one SET lock_timeout = 1;
		ALTER DATABASE one SET default_transaction_read_only = on;
		ALTER DATABASE one SET default_transaction_isolation = 'serializable';});
	$node->safe_psql('postgres', q{
		SELECT pg_terminate_backend(pid) } . sweepers('one'));
	sweeper_gone('one', 'no sweeper');
	is( $node->safe_psql('one', qq{
			SET default_transaction_read_only = off;
			SELECT le_try_acquire(41, 'dead', 1);}),
		't',
		'acquisition');
	my $pid = sweeper_runs('one', 'a sweeper, its interval still an hour');

	# and its own take effect at once
	my $session = Session->new($node->connstr('one'));
	$session->say('BEGIN READ WRITE; LOCK TABLE le_lease');
	$node->append_conf('postgresql.conf',
		'leader_election.sweep_interval = 200ms');
	$node->reload;
	ok( $node->poll_query_until('one', qq{
			SELECT count(*) = 1 FROM pg_locks
			 WHERE pid = $pid AND NOT granted AND relation = 'le_lease'::regclass}),
		'a shorter interval takes effect, and it waits for the table');
	is($session->say('SELECT pg_sleep(0.1); COMMIT'), '', 'for longer than 1 ms');
	$session->quit;
	ok( $node->poll_query_until('one',
			'SELECT count(*) = 0 FROM le_lease WHERE lock_id = 41'),
		'it sweeps');
	is(sweeper_runs('one', 'a sweeper'), $pid, 'it is the same');
	$node->safe_psql('postgres', 'ALTER DATABASE one RESET ALL');
};

subtest 'all worker slots are taken' => sub {
	$node->append_conf('postgresql.conf', q{
max_worker_processes = 1
max_logical_replication_workers = 0
});
	$node->restart;
	acquires('one', 31, 'acquisition');
	my $pid = sweeper_runs('one', 'takes the only slot for its sweeper');

	my $offset = -s $node->logfile;
	acquires('two', $_, "acquisition $_ in another database")
	  foreach (31 .. 33);
	$node->safe_psql('postgres', 'SELECT');
	like(
		slurp_file($node->logfile, $offset),
		qr/LOG: .*could not start the sweeper of leader_election/,
		'goes on without a sweeper');
	is($node->safe_psql('two', "SELECT le_renew(31, 'a'), le_sweep(0)"),
		't|0', 'so do a heartbeat and a sweep by hand');

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	sweeper_gone('one', 'the slot becomes free');
	ok( $node->poll_query_until('two', q{
			SELECT le_release(31, 'a') IS NOT NULL
				   AND le_try_acquire(31, 'a', 600000)
				   AND sweeper_pid IS NOT NULL FROM le_info()}),
		'and the next transition takes it');
};

subtest 'is killed' => sub {
	my $pid = sweeper_runs('two', 'a sweeper');
	my $token = $node->safe_psql('two', q{SELECT le_token(32, 'a')});
	$node->append_conf('postgresql.conf', 'restart_after_crash = on');
	$node->reload;

	my $offset = -s $node->logfile;
	is(kill('KILL', $pid), 1, 'killed');
	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$offset);
	$node->poll_query_until('postgres', 'SELECT 1', '1')
	  or die 'the server did not come back';
	is( $node->safe_psql('two',
			"SELECT le_renew(32, 'a', $token), le_try_acquire(32, 'b')"),
		't|f',
		'the server restarts, and the leader leads on');
	acquires('two', 34, 'next acquisition');
	isnt(sweeper_runs('two', 'another comes'), $pid, 'which is a new one');
};

subtest 'no worker can run' => sub {
	$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
	$node->stop;
	my $offset = -s $node->logfile;
	$node->start;

	acquires('one', $_, "acquisition $_ without a worker slot")
	  foreach (21 .. 24);
	is($node->safe_psql('one', "SELECT le_release(21, 'a')"),
		't', 'release without a worker slot');
	acquires('two', 21, 'acquisition in another database');

	is( scalar(
			() = slurp_file($node->logfile, $offset) =~
			  /LOG: .*could not start the sweeper of leader_election/g),
		1,
		'the log tells it once');
	like(
		$node->safe_psql('one', 'SELECT warnings FROM le_info()'),
		qr/no background worker slot was free/,
		'le_info warns');
};

$node->stop;
done_testing();
