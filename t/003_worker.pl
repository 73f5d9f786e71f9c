# The sweeper comes when a sweep is due, whatever call finds that out, sweeps
# one database, and goes.  There is one in the whole server, so it does not wait,
# and it is in nobody's way: whoever drops or copies its database, drops the
# extension, locks the table, terminates it or stops the server succeeds at
# once and reads nothing of it in the log.  Where no worker can run, elections
# go on without.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;
use Time::HiRes qw(usleep);

my $long = 600_000;    # outlives the test

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;

# debug1 tells of each worker that is registered; batches are small
$node->append_conf('postgresql.conf', q{
log_min_messages = debug1
log_line_prefix = '%m [%p] %b: '
log_lock_waits = off        # on by default in 19, and we make it wait
max_connections = 20
max_locks_per_transaction = 10
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

sub setting
{
	my ($setting) = @_;
	$node->append_conf('postgresql.conf', "leader_election.$setting");
	$node->reload;
	return;
}

sub acquires
{
	my ($db, $lock, $name) = @_;
	is($node->safe_psql($db, "SELECT le_try_acquire($lock, 'a', $long)"),
		't', $name);
	return;
}

# Leases that are over at once, to be swept in five seconds; one statement each,
# since a transaction cannot hold many locks here.
sub over
{
	my ($db, $from, $to) = @_;
	is( $node->safe_psql($db,
			join(';', map { "SELECT le_try_acquire($_, 'dead', 1)" } $from .. $to)),
		join("\n", ('t') x ($to - $from + 1)),
		"leases that are over in $db");
	return;
}

# Every look is a call that may find a sweep due.
sub row_goes
{
	my ($db, $lock, $name) = @_;
	ok( $node->poll_query_until($db, qq{
			SELECT le_leader($lock) IS NULL AND NOT EXISTS
				   (SELECT FROM le_lease WHERE lock_id = $lock)}),
		$name);
	return;
}

sub is_swept
{
	my ($db, $name) = @_;
	my $now = $node->safe_psql($db, 'SELECT clock_timestamp()');
	ok( $node->poll_query_until($db, qq{
			SELECT le_leader(0) IS NULL AND last_sweep > '$now' FROM le_info()}),
		$name);
	return;
}

my $sweepers = q{FROM pg_stat_activity
	WHERE backend_type = 'leader_election sweeper'};

# A sweeper that waits for somebody.  Looks are cheap here, since a sweeper does
# not wait for long.
my $waiting = qq{
	CREATE FUNCTION pg_temp.waiting_sweeper() RETURNS int LANGUAGE plpgsql AS \$\$
	DECLARE found_pid int;
	BEGIN
		LOOP
			PERFORM le_leader(0), pg_stat_clear_snapshot();
			SELECT pid INTO found_pid $sweepers AND wait_event_type = 'Lock';
			EXIT WHEN FOUND;
		END LOOP;
		RETURN found_pid;
	END \$\$};

# How many workers have been registered so far?  A new connection shows that
# the postmaster has seen all that was asked for before.
sub registrations
{
	$node->safe_psql('postgres', 'SELECT');
	return scalar(
		() = slurp_file($node->logfile) =~
		  /\bregistering background worker "leader_election sweeper/g);
}

# Calls for so long that a sweep would certainly be due, and could be started.
my $calls = q{
	DO $$
	BEGIN
		FOR i IN 1 .. 12 LOOP
			PERFORM le_leader(0), le_renew(0, 'nobody'), pg_sleep(0.1);
			COMMIT;
		END LOOP;
	END $$};

# How many sweepers do they start?
sub calls_start
{
	my ($session) = @_;
	my $before = registrations();
	$session->say($calls);
	return registrations() - $before;
}

# They start one, sooner or later.
sub calls_start_one
{
	my ($session, $name) = @_;
	my $before = registrations();
	my $tries = $PostgreSQL::Test::Utils::timeout_default;
	$session->say($calls) while registrations() == $before && $tries-- > 0;
	cmp_ok(registrations(), '>', $before, $name);
	return;
}

create_database($_) foreach ('one', 'two');

subtest 'comes when a sweep is due, and goes' => sub {
	my $session = Session->new($node->connstr('one'));
	is(calls_start($session), 0, 'not where no term has ever begun');
	is($session->say('SELECT last_sweep IS NULL FROM le_info()'),
		't', 'and le_info knows of none');

	acquires('one', 1, 'first acquisition');
	is_swept('one', 'a sweep, and le_info knows when');
	ok( $node->poll_query_until('postgres', "SELECT count(*) = 0 $sweepers"),
		'the sweeper is gone');
	calls_start_one($session, 'and comes again');
	$session->quit;
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

	row_goes('one', $_, "row $_ goes") foreach (101 .. 120);
	cmp_ok(
		$node->safe_psql('one',
			"SELECT extract(epoch FROM clock_timestamp()) - $over"),
		'>=', 5, 'not before they have been over for five seconds');
	ok( $node->poll_query_until('one',
			'SELECT le_leader(1) = $$a$$ AND entries = 1 FROM le_info()'),
		'and what was reserved for their heartbeats');
	is( $node->safe_psql('one', "SELECT le_renew(1, 'a'), le_leader(1)"),
		't|a',
		'a live lease stays');
};

subtest 'whatever call starts it' => sub {
	my %call = (
		le_try_acquire => "le_try_acquire(1, 'refused', 1000)",
		le_renew => "le_renew(1, 'a')",
		le_release => "le_release(1, 'b')",
		le_guard => "le_guard(1, 'a')");
	# le_guard() warns if there is nothing to guard
	local $ENV{PGOPTIONS} = '-c client_min_messages=error';
	foreach my $function (sort keys %call)
	{
		my $now = $node->safe_psql('one', 'SELECT clock_timestamp()');
		ok( $node->poll_query_until('one', qq{
				SELECT last_sweep > '$now'
				  FROM le_info(), LATERAL (SELECT $call{$function}) AS called
				 WHERE called IS NOT NULL}),
			$function);
	}

	$ENV{PGOPTIONS} = '-c default_transaction_read_only=on';
	is_swept('one', 'in a read-only transaction');
};

subtest 'leaves an empty table alone' => sub {
	my $session = Session->new($node->connstr('one'));
	is($session->say("SELECT le_release(1, 'a')"), 't', 'last release');
	my $started = 1;
	for (my $try = 0; $started > 0 && $try < 10; $try++)
	{
		$started = calls_start($session);
	}
	is($started, 0, 'no sweep any more');

	acquires('one', 1, 'next acquisition');
	is($session->say("SELECT le_leader(1)"), 'a', 'a call in another session');
	is_swept('one', 'makes it due again');
	$session->quit;
};

# Each setting that stands in the file is assigned anew when the file is read, so
# the intervals come before any line of another setting that makes sessions look.
subtest 'a shorter interval takes effect at once' => sub {
	setting('sweep_interval = 1h');
	my $session = Session->new($node->connstr('one'));
	is(calls_start($session), 0, 'no sweep within the hour');
	setting('sweep_interval = 200ms');
	calls_start_one($session, 'one in this session');
	$session->quit;
};

subtest 'after a restart' => sub {
	setting('sweeper = off');
	is(calls_start(Session->new($node->connstr('one'))), 0, 'switched off');
	$node->append_conf('postgresql.conf', 'leader_election.sweeper = on');
	$node->restart;
	is_swept('one', 'what was there before is swept, though no term begins');
};

subtest 'the switch takes effect at once' => sub {
	my $session = Session->new($node->connstr('one'));
	setting('sweeper = off');
	is(calls_start($session), 0, 'switched off');
	like($session->say('SELECT warnings FROM le_info()'),
		qr/leader_election\.sweeper is off/, 'le_info warns');
	setting('sweeper = on');
	calls_start_one($session, 'switched on again');
	$session->quit;
};

subtest 'waits for nobody' => sub {
	my $session = Session->new($node->connstr('one'));
	my $offset = -s $node->logfile;
	my $before = registrations();
	$session->say('BEGIN; LOCK TABLE le_lease');
	$session->say('SELECT le_leader(0)') while registrations() == $before;
	acquires('two', 1,
		'a table is locked and a sweep of it due, acquisition in another database');
	is_swept('two', 'which is swept');
	$session->say('COMMIT');
	is_swept('one', 'the next sweep of the first finds it free');

	# a row's lock it cannot but wait for
	over('one', 43, 43);
	$session->say("$waiting;
		BEGIN; SELECT FROM le_lease WHERE lock_id = 43 FOR UPDATE");
	is($session->say('SELECT pg_terminate_backend(pg_temp.waiting_sweeper())'),
		't', 'terminated while it waits for a row');
	is_swept('two', 'others can be swept');
	unlike(slurp_file($node->logfile, $offset),
		qr/sweeper.*(?:FATAL|ERROR|WARNING|LOG):/, 'the log tells nothing');

	like($session->say('SELECT pg_temp.waiting_sweeper()'),
		qr/^\d+$/, 'the next one waits as well');
	is_swept('two', 'but not for ever');
	$session->say('COMMIT');
	row_goes('one', 43, 'and then the row goes');
	$session->quit;
};

subtest 'the extension is dropped' => sub {
	$node->safe_psql('two', 'DROP EXTENSION leader_election');
	$node->safe_psql('two', 'CREATE EXTENSION leader_election');
	acquires('two', 1, 'created anew, acquisition');
	is_swept('two', 'and a sweep');
};

subtest 'the database is wanted' => sub {
	create_database('busy');
	over('busy', 1, 1000);
	acquires('busy', 2000, 'acquisition');
	my $inside = Session->new($node->connstr('busy'));
	my $outside = Session->new($node->connstr('postgres'));
	my $offset = -s $node->logfile;
	my $wants = q{
		SELECT count(*) > 0 FROM pg_locks
		 WHERE classid = 'pg_database'::regclass AND granted
			   AND mode IN ('ShareLock', 'AccessExclusiveLock')};

	# while it sweeps: it has deleted a batch, and leaves
	$inside->say("$waiting;
		BEGIN; SELECT FROM le_lease WHERE lock_id = 1 FOR UPDATE");
	like($inside->say('SELECT pg_temp.waiting_sweeper()'), qr/^\d+$/, 'a sweep');
	$outside->send('CREATE DATABASE copy TEMPLATE busy');
	usleep(10_000) until $inside->say($wants) eq 't';
	$inside->quit;
	is($outside->receive, '', 'copied');
	my $left = $node->safe_psql('copy', 'SELECT count(*) FROM le_lease');
	cmp_ok($left, '>', 1, 'before the sweep was over');
	note("$left of 1001 rows were left");

	# before it comes: none is started
	$inside = Session->new($node->connstr('busy'));
	is($inside->say("SELECT le_leader(2000)"), 'a', 'a session');
	$outside->send('DROP DATABASE busy');
	usleep(10_000) until $inside->say($wants) eq 't';
	is(calls_start($inside), 0, 'no sweep of a database that is being dropped');
	$inside->quit;
	is($outside->receive, '', 'dropped');
	unlike(slurp_file($node->logfile, $offset), qr/sweeper.*FATAL/,
		'the log tells nothing');

	# a session that was there before goes on
	$inside = Session->new($node->connstr('copy'));
	is($inside->say("SELECT le_try_acquire(2000, 'a', $long)"),
		't', 'a session, and a term that stays');
	$outside->say('ALTER DATABASE copy ALLOW_CONNECTIONS false');
	$outside->quit;
	is(calls_start($inside), 0, 'no sweep of a database that lets nobody in');
	$node->safe_psql('postgres', 'ALTER DATABASE copy ALLOW_CONNECTIONS true');
	calls_start_one($inside, 'of one that does again');
	$inside->quit;
	unlike(slurp_file($node->logfile, $offset), qr/sweeper.*FATAL/,
		'the log tells nothing');
};

subtest 'all worker slots are taken' => sub {
	$node->append_conf('postgresql.conf', q{
max_worker_processes = 1
max_logical_replication_workers = 0
});
	$node->restart;
	my $offset = -s $node->logfile;
	my $parallel = Session->new($node->connstr('postgres'));
	$parallel->send(q{
		SELECT set_config(name, 'on', false) FROM pg_settings
		 WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
		SELECT pg_sleep(3600)});
	ok( $node->poll_query_until('postgres', q{
			SELECT count(*) = 1 FROM pg_stat_activity
			 WHERE backend_type = 'parallel worker'}),
		'a parallel query has the only one');

	my $session = Session->new($node->connstr('two'));
	acquires('two', $_, "acquisition $_ without") foreach (31 .. 33);
	is(calls_start($session), 0, 'no sweeper');
	is( scalar(
			() = slurp_file($node->logfile, $offset) =~
			  /LOG: .*could not start the sweeper of leader_election/g),
		1,
		'the log tells it once');
	is($session->say("SELECT le_renew(31, 'a'), le_sweep(0)"),
		't|0', 'a heartbeat and a sweep by hand');
	like($session->say('SELECT warnings FROM le_info()'),
		qr/no background worker slot was free/, 'le_info warns');

	$node->safe_psql('postgres', q{
		SELECT pg_cancel_backend(pid) FROM pg_stat_activity
		 WHERE query ~ 'pg_sleep' AND backend_type = 'client backend'
			   AND pid <> pg_backend_pid()});
	$parallel->receive;
	is_swept('two', 'when the slot is free it is used');
	unlike($session->say('SELECT warnings FROM le_info()'),
		qr/no background worker slot was free/, 'le_info warns no more');
	$session->quit;
	$parallel->quit;
};

subtest 'is killed' => sub {
	my $token = $node->safe_psql('two', q{SELECT le_token(32, 'a')});
	$node->append_conf('postgresql.conf', q{
restart_after_crash = on
max_worker_processes = 8
});
	$node->restart;
	over('two', 45, 45);

	my $offset = -s $node->logfile;
	my $session = Session->new($node->connstr('two'));
	$session->say("$waiting;
		BEGIN; SELECT FROM le_lease WHERE lock_id = 45 FOR UPDATE");
	my $killed = 0;
	$killed = kill('KILL', $session->say('SELECT pg_temp.waiting_sweeper()'))
	  until $killed;
	$node->wait_for_log(qr/all server processes terminated; reinitializing/,
		$offset);
	$node->poll_query_until('postgres', 'SELECT 1', '1')
	  or die 'the server did not come back';
	is( $node->safe_psql('two',
			"SELECT le_renew(32, 'a', $token), le_try_acquire(32, 'b')"),
		't|f',
		'the server restarts, and the leader leads on');
	is_swept('two', 'another sweeper comes');
};

subtest 'the server is stopped' => sub {
	my $session = Session->new($node->connstr('two'));
	my $other = Session->new($node->connstr('one'));
	my $locker = Session->new($node->connstr('postgres'));
	my $offset = -s $node->logfile;

	# a sweeper that has hardly come yet, nor can
	$_->say('SELECT le_leader(0)') foreach ($session, $other);
	$locker->say('BEGIN; LOCK TABLE pg_db_role_setting');
	$session->say(q{
		DO $$
		BEGIN
			LOOP
				PERFORM le_leader(0);
				EXIT WHEN EXISTS (SELECT FROM pg_locks WHERE NOT granted
					AND relation = 'pg_db_role_setting'::regclass);
			END LOOP;
		END $$});
	$other->say("$calls; $calls");
	is( $other->say(q{
			SELECT count(*) FROM pg_locks
			 WHERE NOT granted AND relation = 'pg_db_role_setting'::regclass}),
		'1',
		'no other one comes meanwhile');
	$node->stop('fast');
	unlike(slurp_file($node->logfile, $offset),
		qr/sweeper.*(?:FATAL|ERROR|WARNING|LOG):/, 'the log tells nothing');
	eval { $_->quit } foreach ($session, $other, $locker);
};

subtest 'no worker can run' => sub {
	$node->append_conf('postgresql.conf', 'max_worker_processes = 0');
	my $offset = -s $node->logfile;
	$node->start;

	my $session = Session->new($node->connstr('one'));
	acquires('one', $_, "acquisition $_ without a worker slot")
	  foreach (21 .. 24);
	is($session->say("SELECT le_release(21, 'a')"),
		't', 'release without a worker slot');
	is(calls_start($session), 0, 'no sweeper');
	is( scalar(
			() = slurp_file($node->logfile, $offset) =~
			  /LOG: .*could not start the sweeper of leader_election/g),
		1,
		'the log tells it once');
	$session->quit;
};

$node->stop;
done_testing();
