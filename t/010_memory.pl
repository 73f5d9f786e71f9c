# Shared memory runs out.  Whoever needs some is told so by an error of class
# 53, nothing has changed by then, and as soon as there is room the same call
# succeeds: at the very first call, for the struct and for the hash table, and
# at any later term.  Those who lead already do not notice.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
leader_election.memory_limit = 2MB
leader_election.sweep_interval = 1h
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

# A function that eats up what the server keeps spare of its shared memory.
my $dir = $PostgreSQL::Test::Utils::tmp_check;
append_to_file("$dir/eat.c", <<'C');
#include "postgres.h"
#include "fmgr.h"
#include "storage/shmem.h"
PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(eat);
Datum
eat(PG_FUNCTION_ARGS)
{
	while (ShmemAllocNoError(128) != NULL)
		;
	PG_RETURN_VOID();
}
C
command_ok(
	[
		'gcc', '-shared', '-fPIC', '-o', "$dir/eat.so",
		'-I', $node->config_data('--includedir-server'), "$dir/eat.c"
	],
	'a function that eats up the spare shared memory');
$node->safe_psql('postgres',
	"CREATE FUNCTION eat() RETURNS void LANGUAGE c AS '$dir/eat', 'eat'");


# Limit the size of the files that a process may make, shared memory too.
sub limit_files
{
	my ($pid, $limit) = @_;
	system_or_bail('prlimit', "--pid=$pid", "--fsize=$limit:unlimited");
	return;
}

subtest 'no room for the hash table at the first call' => sub {
	my $session = Session->new($node->connstr('postgres'));
	my $pid = $session->pid;

	limit_files($pid, 100_000);
	foreach my $call ('le_leader(1)', "le_renew(1, 'a')",
		"le_try_acquire(1, 'a', $long)", 'entries FROM le_info()')
	{
		is($session->say("SELECT $call"), 'ERROR:  53200', $call);
	}
	is( $session->say(
			"BEGIN; SAVEPOINT s; SELECT le_leader(1); ROLLBACK TO s; COMMIT"),
		'ERROR:  53200',
		'in a savepoint that is rolled back');
	is($session->say('SELECT count(*) FROM le_lease'),
		'0', 'nothing has changed');

	limit_files($pid, 'unlimited');
	is( $session->say(
			"SELECT le_try_acquire(1, 'a', $long), le_renew(1, 'a')"),
		't|t',
		'the next call works, in the same session');
	$session->quit;
	is($node->safe_psql('postgres', "SELECT le_leader(1)"),
		'a', 'and in another');
};

subtest 'no room for another lease' => sub {
	my $session = Session->new($node->connstr('postgres'));
	my ($lock, $said) = (1000, '');

	# one statement for each thousand: it is undone as a whole
	while ($said eq '')
	{
		$lock += 1000;
		die 'no end' if $lock > 1_000_000;
		$said = $session->say(qq{
			SELECT FROM generate_series($lock, $lock + 999) AS id
			 WHERE NOT le_try_acquire(id, 'a', $long)});
	}
	is($said, 'ERROR:  53200', 'refused');
	is( $session->say("SELECT count(*) FROM le_lease WHERE lock_id >= $lock"),
		'0',
		'nothing has changed');
	is($session->say("SELECT le_try_acquire(2000, 'b')"),
		'f', 'and nobody else gets in');
	is($session->say("SELECT le_release(2000, 'a'), le_try_acquire(2000, 'b', $long)"),
		't|t', 'whose lock is vacant may take it, it has its place');

	# what did not fit is refused again and again
	my $refused = $session->say(qq{
		SELECT id FROM generate_series($lock, $lock + 999) AS id
		 WHERE le_try_acquire(id, 'c', $long) AND le_release(id, 'c')});
	is($refused, 'ERROR:  53200', 'refused again');

	# Most leases have not had a heartbeat yet.  The places that were reserved
	# for it are theirs until they are over, whoever sweeps.
	is($session->say('SELECT le_sweep(0)'), '0', 'swept');
	is( $session->say(qq{
			SELECT FROM generate_series($lock, $lock + 999) AS id
			 WHERE NOT le_try_acquire(id, 'c', $long)}),
		'ERROR:  53200',
		'that makes no room');
	is( $session->say(qq{
			SELECT count(*) FILTER (WHERE le_renew(id, leader_id))
				   = count(*), count(*) > 1000
			  FROM leader_lease}),
		't|t',
		'all who lead can renew');

	$node->append_conf('postgresql.conf',
		'leader_election.memory_limit = 4MB');
	$node->reload;
	ok( $node->poll_query_until('postgres',
			"SELECT current_setting('leader_election.memory_limit') = '4MB'"),
		'a larger limit');
	is( $session->say(qq{
			SELECT count(*) FILTER (WHERE le_try_acquire(id, 'c', $long))
			  FROM generate_series($lock, $lock + 999) AS id}),
		'1000',
		'now there is room');

	$node->append_conf('postgresql.conf',
		'leader_election.memory_limit = 2MB');
	$node->reload;
	ok( $node->poll_query_until('postgres',
			"SELECT current_setting('leader_election.memory_limit') = '2MB'"),
		'a smaller limit');
	is( $session->say(qq{
			SELECT count(*) FILTER (WHERE le_renew(id, 'c')) FROM leader_lease}),
		'1000',
		'takes nothing from those who lead');
	$session->quit;
};

# A term that is no more gives its memory back at once, for who knows how many
# of an hour's length there are in a day.
subtest 'memory comes back' => sub {
	$node->restart;
	my $session = Session->new($node->connstr('postgres'));
	is( $session->say(q{
			SELECT count(le_release(id, leader_id)) > 1000 FROM leader_lease;
			SELECT entries FROM le_info()}),
		"t\n0",
		'all terms released');
	is($session->say("SELECT le_try_acquire(1, 'a', $long)"), 't', 'a term');
	is($session->say("SELECT le_renew(1, 'a')"), 't', 'with a heartbeat');

	my ($said, $lock) = ('', 0);
	for (1 .. 20)
	{
		$lock += 1000;
		$said .= $session->say(qq{
			SELECT FROM generate_series($lock, $lock + 999) AS id
			 WHERE NOT le_try_acquire(id, 'a', $long);
			SELECT FROM generate_series($lock, $lock + 499) AS id
			 WHERE NOT le_renew(id, 'a');
			SELECT FROM generate_series($lock, $lock + 999) AS id
			 WHERE NOT le_release(id, 'a')});
	}
	is($said, '', 'many more terms than there is room for, each released');
	is($session->say('SELECT entries FROM le_info()'), '1', 'of which nothing stays');

	is( $session->say(qq{
			SELECT 1 / (id - 1999) FROM generate_series(1000, 1999) AS id
			 WHERE le_try_acquire(id, 'a', $long) AND le_renew(id, 'a')}),
		'ERROR:  22012',
		'a statement that fails after many terms');
	is($session->say('SELECT entries FROM le_info()'), '1', 'of which nothing stays');

	is( $session->say(qq{
			SET leader_election.allow_in_transaction = on;
			BEGIN;
			SELECT le_try_acquire(2, 'a', $long);
			SAVEPOINT s;
			SELECT count(*) FILTER (WHERE le_try_acquire(id, 'a', $long))
			  FROM generate_series(1000, 1099) AS id;
			SELECT entries FROM le_info();
			SELECT le_release(2, 'a'), le_try_acquire(2, 'b', $long), le_release(1, 'a');
			ROLLBACK TO s;
			SELECT entries FROM le_info();
			COMMIT;
			SELECT entries FROM le_info();
			SELECT le_renew(2, 'a'), le_renew(1, 'a');
			RESET leader_election.allow_in_transaction}),
		"t\n100\n102\nt|t|t\n2\n2\nt|t",
		'a savepoint is rolled back: nothing stays of what it began, all of what it ended');
	is( $session->say("BEGIN; SELECT le_release(1, 'a'); ROLLBACK; SELECT le_renew(1, 'a'), entries FROM le_info()"),
		"t\nt|2",
		'a release that is rolled back takes nothing');
	my $other = Session->new($node->connstr('postgres'));
	$other->say("SET leader_election.allow_in_transaction = on; BEGIN");
	is( $other->say(qq{
			SELECT count(*) FILTER (WHERE le_try_acquire(id, 'a', $long))
			  FROM generate_series(1000, 1099) AS id}),
		'100',
		'a transaction with many terms');
	my $pid = $other->say('SELECT pg_backend_pid()');
	$session->say("SELECT pg_terminate_backend($pid)");
	$other->{run}->kill_kill;
	ok($node->poll_query_until('postgres', 'SELECT entries = 2 FROM le_info()'),
		'whose backend is terminated: nothing stays');

	# what is over makes room, without a sweep
	$said = '';
	for (1 .. 10)
	{
		$lock += 1000;
		$said .= $session->say(qq{
			SELECT FROM generate_series($lock, $lock + 999) AS id
			 WHERE NOT le_try_acquire(id, 'a', 1)});
	}
	is($said, '', 'many more short terms than there is room for');
	is($session->say("SELECT le_renew(2, 'a'), le_renew(1, 'a')"),
		't|t', 'which takes nothing from those who lead');

	# what belonged to an extension or a database that is gone goes with a sweep
	$node->append_conf('postgresql.conf', 'leader_election.sweep_interval = 100ms');
	$node->reload;
	ok( $node->poll_query_until('postgres', q{
			SELECT le_try_acquire(1, 'a', 600000) AND entries = 2 FROM le_info()}),
		'a sweep drops what is over');
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	foreach my $gone (
		[ 'other', 'DROP EXTENSION leader_election; CREATE EXTENSION leader_election' ],
		[ 'postgres', 'DROP DATABASE other' ])
	{
		my ($db, $drop) = @$gone;
		$node->safe_psql('other',
			'CREATE EXTENSION IF NOT EXISTS leader_election');
		is( $node->safe_psql('other', qq{
				SELECT count(*) FILTER (WHERE le_try_acquire(id, 'a', $long))
				  FROM generate_series(1, 5000) AS id}),
			'5000',
			'terms in another database');
		$node->safe_psql($db, $drop);
		# a sweep of that database, where there is a term in it
		my $own = $db eq 'other' ? 1 : 0;
		ok( $node->poll_query_until($db, qq{
				SELECT le_try_acquire(1, 'a', $long)
					   AND entries = 2 + $own FROM le_info()}),
			"$drop: the memory comes back");
	}
	$node->append_conf('postgresql.conf', 'leader_election.sweep_interval = 1h');
	$node->reload;

	# how full is it, and what is to be done?
	is( $session->say(q{
			SELECT count(*) FROM le_info() AS i, unnest(i.warnings) AS w
			 WHERE w ~ 'memory_limit'}),
		'0',
		'no warning');
	my $warned = '';
	for (1 .. 100)
	{
		$lock += 100;
		$said = $session->say(qq{
			SELECT FROM generate_series($lock, $lock + 99) AS id
			 WHERE NOT le_try_acquire(id, 'a', $long)});
		last if $said ne '';
		$warned = $session->say(q{
			SELECT w FROM le_info() AS i, unnest(i.warnings) AS w
			 WHERE w ~ 'memory_limit'});
	}
	is($said, 'ERROR:  53200', 'no more room');
	is( $warned,
		'heartbeats fill more than 80 % of leader_election.memory_limit (2048 kB)',
		'le_info has warned of it');
	my (undef, undef, $err) = $node->psql('postgres', qq{
		SELECT FROM generate_series($lock, $lock + 999) AS id
		 WHERE NOT le_try_acquire(id, 'a', $long)});
	like($err, qr/HINT:  Increase "leader_election.memory_limit", which is 2048 kB now/,
		'and the error names the setting');

	# Who looks for room in a transaction that has dropped the extension sees it
	# gone, and it is not: after a rollback its leaders must have their heartbeats.
	my $renewals = $session->say("SELECT renewals FROM leader_lease WHERE id = 2");
	my $another = Session->new($node->connstr('postgres'));
	is( $another->say(qq{
			SET leader_election.allow_in_transaction = on;
			BEGIN;
			DROP EXTENSION leader_election;
			CREATE EXTENSION leader_election;
			SELECT FROM generate_series(1, 1000) AS id WHERE NOT le_try_acquire(id, 'x', $long);
			ROLLBACK;
			SELECT renewals >= $renewals FROM leader_lease WHERE id = 2}),
		"ERROR:  53200\nt",
		'the heartbeats of an extension whose DROP is rolled back stay');
	$another->quit;
	$session->quit;
};

subtest 'no room for the struct at the first call' => sub {
	$node->restart;
	my $session = Session->new($node->connstr('postgres'));
	is($session->say('SELECT eat()'), '', 'no spare shared memory');

	foreach my $call ('le_leader(1)', "le_try_acquire(5, 'a', $long)")
	{
		my (undef, $out, $err) =
		  $node->psql('postgres', "\\set VERBOSITY verbose
SELECT $call");
		like($err, qr/ERROR:  53200: .*
HINT:  Add "leader_election" to "shared_preload_libraries" and restart/,
			"$call: the hint says what to do");
	}
	is( $session->say(
			'SELECT count(*) FROM le_lease WHERE lock_id IN (1, 5)'),
		'1',
		'nothing has changed');
	$session->quit;

	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = 'leader_election'");
	$node->restart;
	is($node->safe_psql('postgres', 'SELECT eat()'),
		'', 'preloaded, and no spare shared memory');
	is( $node->safe_psql('postgres', qq{
			SELECT le_leader(1), le_renew(1, 'a');
			SELECT le_try_acquire(5, 'a', $long)}),
		"a|t\nt",
		'elections work');
};

subtest 'no room for another lock of the server' => sub {
	$node->append_conf('postgresql.conf', q{
shared_preload_libraries = ''
leader_election.memory_limit = 64MB
max_connections = 10
max_locks_per_transaction = 10
});
	$node->restart;
	my (undef, undef, $err) = $node->psql('postgres', qq{
		\\set VERBOSITY verbose
		SELECT count(*) FROM generate_series(10000000, 10099999) AS id
		 WHERE le_try_acquire(id, 'a', $long)});
	like($err, qr/ERROR:  53200: .*
HINT:  Begin, end or guard fewer terms in one statement or transaction/,
		'the hint says what to do');
	is( $node->safe_psql('postgres',
			'SELECT count(*) FROM le_lease WHERE lock_id >= 10000000'),
		'0',
		'nothing has changed');

	# A heartbeat needs no lock, and none for a sweep that is due.
	$node->append_conf('postgresql.conf', q{
leader_election.sweep_interval = 100ms
leader_election.sweep_jitter = 0
});
	$node->restart;
	is( $node->safe_psql('postgres', qq{
			SELECT le_try_acquire(1, 'b', $long) IS NOT NULL;
			SELECT le_try_acquire(6, 'a', $long);
			SELECT le_renew(6, 'a');}),
		"t\nt\nt",
		'a leader');
	my $leader = Session->new($node->connstr('postgres'));
	is($leader->say("SELECT le_renew(6, 'a')"), 't', 'which has a session');
	my $hog = Session->new($node->connstr('postgres'));
	is($hog->say('SELECT count(pg_advisory_lock(i)) FROM generate_series(1, 1000000) AS i'),
		'ERROR:  53200', 'all locks are taken');
	is($hog->say('SELECT pg_advisory_lock(0)'), 'ERROR:  53200', 'and stay so');
	is( $leader->say(q{
			DO $$ BEGIN
				FOR i IN 1 .. 30 LOOP
					IF NOT le_renew(6, 'a') THEN RAISE 'deposed'; END IF;
					PERFORM pg_sleep(0.02);
				END LOOP;
			END $$}),
		'',
		'heartbeats go on, though a sweep is due');
	$_->quit foreach ($hog, $leader);
};

$node->stop;
done_testing();
