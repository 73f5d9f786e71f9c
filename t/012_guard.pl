# What a guarded commit does to the world outside of its session: one that
# hangs keeps every successor out, one that dies leaves nothing behind, and a
# refused one has not been committed anywhere else either.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test
my $short = 1500;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf',
	'leader_election.sweep_interval = 1h');
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION leader_election;
	CREATE TABLE work (step text);
	CREATE TABLE probe ();});

sub count
{
	my ($table) = @_;
	return $node->safe_psql('postgres', "SELECT count(*) FROM $table");
}

sub runs_out
{
	my ($lock) = @_;
	$node->poll_query_until('postgres', "SELECT le_leader($lock) IS NULL")
	  or die "the lease of lock $lock does not run out";
	return;
}

sub waits_for
{
	my ($pid, $event) = @_;
	return $node->poll_query_until('postgres',
		"SELECT wait_event = '$event' FROM pg_stat_activity WHERE pid = $pid");
}

# Let transactions that write hang at their end, because they wait for a
# standby that does not exist.  When the server is up to it shows only in one
# that does hang: returns its session.
sub let_commits_hang
{
	my $probe = Session->new($node->connstr('postgres'));
	my $pid = $probe->pid;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
	$node->reload;
	for (;;)
	{
		$probe->send('INSERT INTO probe DEFAULT VALUES');
		until ($probe->done)
		{
			return $probe
			  if $node->safe_psql('postgres', "
					SELECT wait_event = 'SyncRep' FROM pg_stat_activity
					 WHERE pid = $pid") eq 't';
		}
	}
}

sub let_commits_go
{
	my ($probe) = @_;
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->reload;
	$probe->receive;
	$probe->quit;
	return;
}

subtest 'a commit that hangs' => sub {
	my $session = Session->new($node->connstr('postgres'));
	my $pid = $session->pid;

	is( $session->say("
			SELECT le_try_acquire(1, 'a', $short);
			BEGIN;
			SELECT le_guard(1, 'a') > 0;
			INSERT INTO work VALUES ('hangs')"),
		"t\nt",
		'guarded');
	my $probe = let_commits_hang();
	$session->send('COMMIT');
	ok(waits_for($pid, 'SyncRep'), 'waits for a standby');
	runs_out(1);
	is( $node->safe_psql('postgres',
			"SELECT le_try_acquire(1, 'b', $long), le_sweep(0)"),
		'f|0',
		'nobody succeeds it, though its lease is over');
	is(count('work'), 0, 'what it has done cannot be seen yet');
	let_commits_go($probe);
	is($session->receive, '', 'it commits');
	is( $node->safe_psql('postgres',
			"SELECT le_try_acquire(1, 'b', $long); SELECT count(*) FROM work"),
		"t\n1",
		'then there may be a successor, who sees what was done');
	$session->quit;
};

# It waits for a release that is open, and does not run when that is rolled
# back and when the time is up that it had given itself; it wakes in a term that
# was renewed meanwhile.
subtest 'a commit that is frozen while it waits' => sub {
	my $session = Session->new($node->connstr('postgres'));
	my $releases = Session->new($node->connstr('postgres'));
	my $pid = $session->pid;

	is( $session->say("
			SELECT le_try_acquire(4, 'a', 3000), le_renew(4, 'a');
			BEGIN;
			SELECT le_guard(4, 'a') > 0;
			INSERT INTO work VALUES ('frozen')"),
		"t|t\nt",
		'guarded');
	is($releases->say("BEGIN; SELECT le_release(4, 'a')"), 't', 'a release');
	$session->send('COMMIT');
	ok(waits_for($pid, 'advisory'), 'the commit waits');
	my $first_end = $node->safe_psql('postgres',
		'SELECT expires_at FROM leader_lease WHERE id = 4');
	kill 'STOP', $pid;
	$releases->say('ROLLBACK');
	ok( $node->poll_query_until('postgres',
			"SELECT le_renew(4, 'a') AND clock_timestamp() > '$first_end'"),
		'the lease is renewed');
	kill 'CONT', $pid;
	is($session->receive, '', 'it commits');
	is( $session->say("
			SELECT count(*) FROM work WHERE step = 'frozen';
			SHOW lock_timeout"),
		"1\n0",
		'and leaves no trace in its session');
	$session->quit;
	$releases->quit;
};

# PreCommit_Notify() comes after the look and before the commit, and waits for
# whoever commits a NOTIFY.
subtest 'a crash between the look and the commit' => sub {
	my $notifies = Session->new($node->connstr('postgres'));
	my $session = Session->new($node->connstr('postgres'));
	my ($blocker, $pid) = ($notifies->pid, $session->pid);

	is( $session->say("
			SELECT le_try_acquire(2, 'a', $long);
			BEGIN;
			SELECT le_guard(2, 'a') > 0;
			INSERT INTO work VALUES ('crashes');
			NOTIFY crash"),
		"t\nt",
		'guarded');
	my $token = $node->safe_psql('postgres', "SELECT le_token(2, 'a')");
	my $before = count('work');
	$notifies->say("BEGIN; INSERT INTO work VALUES ('notifies'); NOTIFY crash");
	let_commits_hang();
	$notifies->send('COMMIT');
	ok(waits_for($blocker, 'SyncRep'), 'somebody notifies');
	$session->send('COMMIT');
	ok(waits_for($pid, 'object'), 'and so the commit waits');
	is( $node->safe_psql('postgres', "
			SELECT mode, granted FROM pg_locks
			 WHERE pid = $pid AND locktype = 'advisory' AND objsubid = 19525"),
		'ShareLock|t',
		'it has looked');

	$node->stop('immediate');
	$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$node->start;
	is( $node->safe_psql('postgres',
			"SELECT count(*) FROM work WHERE step = 'crashes'"),
		0,
		'nothing is left of it');
	is( $node->safe_psql('postgres', "
			SELECT le_try_acquire(2, 'b'), le_renew(2, 'a', $token);
			INSERT INTO work SELECT 'after the crash' FROM le_guard(2, 'a', $token);
			SELECT count(*) FROM work WHERE step = 'after the crash'"),
		"f|t\n1",
		'the leader leads on in its term, and may guard');
};

subtest 'postgres_fdw' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE remote');
	$node->safe_psql('remote', 'CREATE TABLE work (step text)');
	my ($host, $port) = ($node->host, $node->port);
	$node->safe_psql('postgres', qq{
		CREATE EXTENSION postgres_fdw;
		CREATE SERVER remote FOREIGN DATA WRAPPER postgres_fdw
			OPTIONS (host '$host', port '$port', dbname 'remote');
		CREATE USER MAPPING FOR CURRENT_USER SERVER remote;
		CREATE FOREIGN TABLE remote_work (step text) SERVER remote
			OPTIONS (table_name 'work');});

	# do this in a new session, with a lease that is over before the COMMIT
	my $loses = sub {
		my (@statements) = @_;
		my $session = Session->new($node->connstr('postgres'));
		$session->say("SELECT le_try_acquire(3, 'a', $short)");
		$session->say($_) foreach (@statements);
		runs_out(3);
		is($session->say('COMMIT'), 'ERROR:  LE001', 'refused');
		$session->quit;
		my $kept = count('remote_work');
		$node->safe_psql('remote', 'TRUNCATE work');
		return $kept;
	};
	my $connect = 'SELECT count(*) FROM remote_work';
	my $guard = "SELECT le_guard(3, 'a') > 0";
	my $write = "INSERT INTO remote_work VALUES ('remote')";

	is($loses->('BEGIN', $write, $guard),
		0, 'nothing is kept there if the guard comes last');
	is($loses->($connect, 'BEGIN', $guard, $write),
		0, 'nor if the session had been connected');
	is($loses->('BEGIN', $guard, $write),
		1, 'a connection that was first opened after it is outside');

	# A guard that is refused, which nobody minds
	my $session = Session->new($node->connstr('postgres'));
	$session->say("SELECT le_leader(3); $connect");    # loaded in this order
	is( $session->say("
			BEGIN;
			SAVEPOINT driver;
			SELECT le_guard(3, 'b');
			ROLLBACK TO driver;
			$write;
			INSERT INTO work VALUES ('refused')"),
		'ERROR:  LE001',
		'a guard is refused');
	is($session->say('COMMIT'), 'ERROR:  LE001', 'so the commit is');
	$session->quit;
	is(count('remote_work'), 0, 'before it has reached the other server');

	$node->safe_psql('postgres', "
		SELECT le_try_acquire(3, 'a', $long);
		INSERT INTO remote_work SELECT 'live' FROM le_guard(3, 'a')");
	is(count('remote_work'), 1, 'who leads commits in both');
};

# Whatever le_guard() fails with, it has not guarded the transaction.
subtest 'a guard that is interrupted' => sub {
	my $session = Session->new($node->connstr('postgres'));
	my $blocker = Session->new($node->connstr('postgres'));
	my $pid = $session->pid;

	$blocker->say('BEGIN; LOCK TABLE le_lease');
	is( $session->say("
			BEGIN;
			SAVEPOINT driver;
			SET LOCAL lock_timeout = '1ms';
			SELECT le_guard(5, 'a');
			ROLLBACK TO driver;
			INSERT INTO work VALUES ('timed out')"),
		'ERROR:  55P03',
		'timed out');
	$blocker->say('COMMIT');
	is($session->say('COMMIT'), 'ERROR:  LE001', 'and refused');

	$blocker->say('BEGIN; LOCK TABLE le_lease');
	$session->send("BEGIN; SAVEPOINT driver; SELECT le_guard(5, 'a')");
	ok(waits_for($pid, 'relation'), 'it waits');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
	is($session->receive, 'ERROR:  57014', 'cancelled');
	$blocker->say('COMMIT');
	is( $session->say("
			ROLLBACK TO driver;
			INSERT INTO work VALUES ('cancelled');
			COMMIT"),
		'ERROR:  LE001',
		'and refused');
	$session->quit;
	$blocker->quit;
};

# The first statement of a pipeline cannot know that work follows.
subtest 'pipelines' => sub {
	my $warning = qr/le_guard\(\) was called in a transaction of its own/;
	my $says = sub {
		my $script = $node->basedir . '/pipeline.sql';
		PostgreSQL::Test::Utils::append_to_file($script,
			join("\n", '\startpipeline', @_, '\endpipeline'));
		my ($out, $err) = run_command(
			[
				'pgbench', '--no-vacuum', '--transactions=1',
				'--protocol=extended', "--file=$script",
				$node->connstr('postgres')
			]);
		unlink $script;
		like($out, qr{processed: 1/1}, 'it runs');
		return $err;
	};
	my $guard = "SELECT le_guard(3, 'a');";

	like($says->($guard), $warning, 'a guard that is alone');
	unlike($says->($guard, "INSERT INTO work VALUES ('pipeline');"),
		$warning, 'work follows it');
	unlike($says->("INSERT INTO work VALUES ('pipeline');", $guard),
		$warning, 'work comes before it');
};

done_testing();
