# The history of terms is no part of the guarantee, so it is in nobody's way.
# Whatever somebody has done to le_term, or whoever has locked it, elections go
# on at once and a row is left out, which the log tells once in an epoch.  The
# sweeper keeps it short.  A restart, and a lack of memory, lose what was not
# written; what is then not known is not made up.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test

# who would wait for a lock gets an error
$ENV{PGOPTIONS} = '-c lock_timeout=100 -c client_min_messages=error';

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', q{
restart_after_crash = on
leader_election.sweep_interval = 100ms
leader_election.sweep_jitter = 0
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

my $left_out = qr/LOG: .*a term of leadership is not in the history/;

sub sql
{
	return $node->safe_psql('postgres', join(";\n", @_));
}

sub setting
{
	my ($setting) = @_;
	$node->append_conf('postgresql.conf', "leader_election.$setting");
	$node->reload;
	return;
}

sub count_terms
{
	return sql('SELECT count(*) FROM le_term');
}

# A term that begins and ends, in a connection of its own.
my $lock = 1000;

sub elect
{
	my ($name) = @_;
	$lock++;
	is( sql("SELECT le_try_acquire($lock, 'node', $long)",
			"SELECT le_renew($lock, 'node')",
			"SELECT le_release($lock, 'node')"),
		"t\nt\nt", $name);
	return;
}

sub is_noted
{
	my ($name) = @_;
	is(sql("SELECT instance, renewals FROM leader_history WHERE lock_id = $lock"),
		'node|1', $name);
	return;
}

sub logged
{
	my ($offset) = @_;
	return scalar(() = slurp_file($node->logfile, $offset) =~ /$left_out/g);
}

# Every look is a call that may find a sweep due.
sub is_swept
{
	my ($name, $db) = (@_, 'postgres');
	my $now = $node->safe_psql($db, 'SELECT clock_timestamp()');
	ok( $node->poll_query_until($db, qq{
			SELECT le_leader(0) IS NULL AND last_sweep > '$now' FROM le_info()}),
		$name);
	return;
}

# There is always something to sweep, so that sweeps go on.
sub keep_sweeping
{
	my ($db) = (@_, 'postgres');
	return $node->safe_psql($db, "SELECT le_try_acquire(1, 'alive', $long)");
}

# Write le_term by hand: n terms, the i-th of which has ended then.
sub fill
{
	my ($n, $ended) = @_;
	return sql(
		'ALTER TABLE le_term DISABLE TRIGGER le_shield',
		qq{INSERT INTO le_term
			SELECT 3, 'filled', i, 10, 10000, now() - interval '9 d', $ended,
				   'r', NULL, NULL, NULL
			  FROM generate_series(1, $n) AS i},
		'ALTER TABLE le_term ENABLE ALWAYS TRIGGER le_shield');
}

keep_sweeping();
elect('a term');
is_noted('is noted when it has ended');

subtest 'locked' => sub {
	my $offset = -s $node->logfile;
	my $locker = Session->new($node->connstr('postgres'));
	my $lost = 0;
	foreach my $statement (
		'LOCK TABLE le_term IN ACCESS EXCLUSIVE MODE',
		'LOCK TABLE le_term IN SHARE MODE',
		'TRUNCATE le_term',
		'ALTER INDEX le_term_lock_id_ended_idx SET TABLESPACE pg_default')
	{
		is($locker->say("BEGIN; $statement"), '', $statement);
		elect('elections go on');
		is( sql("SELECT le_try_acquire(4, 'a', $long)",
				"SELECT le_transfer(4, 'a', le_token(4, 'a'), 'b')",
				'SELECT le_revoke(4)'),
			"t\nt\nt", 'other ways to end a term');
		is_swept('and sweeps');
		is($locker->say('ROLLBACK'), '', 'unlocked');
		is( sql("SELECT count(*) FROM leader_history WHERE lock_id IN (4, $lock)"),
			'0', 'nothing is noted');
		sql('SELECT le_revoke(4, true)');
		elect('the next term');
		is_noted('is noted');
	}
	is($locker->say('BEGIN; SELECT count(*) > 0 FROM le_term'), 't', 'read');
	elect('elections go on');
	is_noted('and are noted');
	$locker->quit;
	is(logged($offset), 1, 'the log has told it once');

	$node->restart;
	keep_sweeping();
	$offset = -s $node->logfile;
	$locker = Session->new($node->connstr('postgres'));
	$locker->say('BEGIN; LOCK TABLE le_term');
	elect("elections go on, $_") foreach ('once', 'twice');
	$locker->quit;
	is(logged($offset), 1, 'after a restart it tells it once more');
	elect('the next term');
	is_noted('is noted');
};

subtest 'not as it was made' => sub {
	my $offset = -s $node->logfile;
	my $anew = 'DROP EXTENSION leader_election; CREATE EXTENSION leader_election';
	my $renamed = 'ALTER TABLE le_term RENAME TO le_terms_of_old';
	sql(q{CREATE FUNCTION fail(bigint) RETURNS bigint IMMUTABLE LANGUAGE plpgsql
			AS $$ BEGIN RAISE 'failed'; END $$},
		'CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler',
		'CREATE SCHEMA other',
		'CREATE TABLE other (n int)');

	my $reader = Session->new($node->connstr('postgres'));
	foreach my $damage (
		[ 'ALTER TABLE le_term ADD COLUMN more int' ],
		[ 'ALTER TABLE le_term ADD COLUMN more int DEFAULT 1, DROP COLUMN least_left_ms' ],
		[ 'ALTER TABLE le_term DROP COLUMN least_left_ms' ],
		[ 'ALTER TABLE le_term DROP COLUMN lock_id' ],
		[ 'ALTER TABLE le_term ALTER COLUMN renewals TYPE int' ],
		[ 'ALTER TABLE le_term ALTER COLUMN instance TYPE varchar(127)' ],
		[ 'ALTER TABLE le_term ALTER COLUMN token TYPE text' ],
		[ 'TRUNCATE le_term; ALTER TABLE le_term ALTER COLUMN ended_by SET NOT NULL',
			'ALTER TABLE le_term ALTER COLUMN ended_by DROP NOT NULL' ],
		[ 'ALTER TABLE le_term SET UNLOGGED', 'ALTER TABLE le_term SET LOGGED' ],
		[ 'ALTER TABLE le_term SET ACCESS METHOD other',
			'ALTER TABLE le_term SET ACCESS METHOD heap' ],
		[ 'ALTER TABLE le_term SET SCHEMA other',
			'ALTER TABLE other.le_term SET SCHEMA public' ],
		[ 'ALTER EXTENSION leader_election DROP TABLE le_term; DROP TABLE le_term' ],
		[ $renamed, 'ALTER TABLE le_terms_of_old RENAME TO le_term' ],
		map({ [ "$renamed; CREATE $_", $anew ] }
			'VIEW le_term AS SELECT * FROM le_terms_of_old',
			'INDEX le_term ON other (n)',
			'TYPE le_term AS (n int)',
			'SEQUENCE le_term',
			'TABLE le_term (LIKE le_terms_of_old) PARTITION BY HASH (lock_id)'),
		map({ [ "CREATE $_", 'DROP INDEX added' ] }
			'UNIQUE INDEX added ON le_term (lock_id, ended)',
			'INDEX added ON le_term (lock_id, ended) WHERE token > 0',
			'INDEX added ON le_term (lock_id, ended) WHERE fail(token) > 0',
			'INDEX added ON le_term (lock_id, (fail(token)))',
			'INDEX added ON le_term (ended, lock_id)',
			'INDEX added ON le_term (lock_id)',
			'INDEX added ON le_term (lock_id, ended, token)'),
		[ 'ALTER TABLE le_term ADD CONSTRAINT added EXCLUDE USING btree (lock_id WITH =, ended WITH =)',
			'ALTER TABLE le_term DROP CONSTRAINT added' ])
	{
		my ($sql, $undo) = @$damage;
		sql('TRUNCATE le_term', $sql);
		elect($sql);
		is( sql("SELECT le_try_acquire(5, 'a', 1)",
				'SELECT count(*) FROM pg_sleep(0.01), le_sweep(0)'),
			"t\n1", 'and sweeps');
		is($reader->say('SELECT * FROM leader_history'),
			'ERROR:  55000', 'the view says so');
		sql($sql =~ /\bCREATE (VIEW|TYPE|SEQUENCE|TABLE)/ ? "DROP $1 le_term" :
			  $sql =~ /INDEX le_term/ ? 'DROP INDEX le_term' : 'SELECT',
			$undo // $anew);
		elect('mended');
		is_noted('and noted');
	}
	$reader->quit;
	cmp_ok(logged($offset), '<=', 1, 'the log has told it once at most');

	sql($anew);
	keep_sweeping();
	foreach my $harmless (
		'DROP INDEX le_term_lock_id_ended_idx',
		'CREATE INDEX a ON le_term (lock_id, ended)',
		'CREATE INDEX b ON le_term (lock_id, ended DESC NULLS FIRST)',
		'CREATE INDEX c ON le_term (lock_id) INCLUDE (ended)',
		'CREATE INDEX d ON le_term USING brin (lock_id, ended)',
		'ALTER TABLE le_term ADD CHECK (lock_id < 0) NOT VALID',
		'CREATE RULE r AS ON INSERT TO le_term DO INSTEAD NOTHING',
		q{CREATE FUNCTION trap() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
			CREATE TRIGGER trap BEFORE INSERT ON le_term FOR EACH ROW EXECUTE FUNCTION trap()},
		'ALTER TABLE le_term ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY',
		'ALTER TABLE le_term ALTER COLUMN instance SET STORAGE EXTENDED',
		'ALTER TABLE le_term REPLICA IDENTITY FULL; CREATE PUBLICATION p FOR TABLE le_term',
		'ALTER TABLE le_term RENAME COLUMN instance TO name',
		'ALTER EXTENSION leader_election SET SCHEMA other; SET search_path = other, public;
			ALTER EXTENSION leader_election SET SCHEMA public')
	{
		sql($harmless);
		elect($harmless);
		is_noted('noted');
	}
	is(sql("SET enable_seqscan = off", "SELECT name FROM le_term WHERE lock_id = $lock"),
		'node', 'also in an index');
	sql($anew);
};

subtest 'trimmed' => sub {
	keep_sweeping();
	setting('sweep_interval = 1h');
	fill(10, "now() - interval '8 d'");
	fill(10, "now() - interval '6 d'");
	setting('sweep_interval = 100ms');
	ok($node->poll_query_until('postgres',
			'SELECT le_leader(0) IS NULL AND count(*) = 10 FROM le_term'),
		'what is older than a week goes');
	is_swept('another sweep');
	is(count_terms(), 10, 'the rest stays');

	# somebody else is deleting some of it just now
	my $session = Session->new($node->connstr('postgres'));
	my $offset = -s $node->logfile;
	fill(5, "now() - interval '5 d'");
	$session->say("BEGIN; DELETE FROM le_term WHERE ended < now() - interval '5.5 d'");
	setting('history_retention = 4d');
	ok($node->poll_query_until('postgres',
			'SELECT le_leader(0) IS NULL AND count(*) = 10 FROM le_term'),
		'a shorter retention, and rows that their owner is deleting');
	is_swept('another sweep');
	$session->say('ROLLBACK');
	$session->quit;
	ok($node->poll_query_until('postgres',
			'SELECT le_leader(0) IS NULL AND count(*) = 0 FROM le_term'),
		'which was rolled back');
	unlike(slurp_file($node->logfile, $offset), qr/ERROR/, 'no error');

	setting('history_retention = 7d');
	fill(125_000, "now() - interval '1 d' + i * interval '1 ms'");
	ok($node->poll_query_until('postgres',
			'SELECT le_leader(0) IS NULL AND count(*) = 100000 FROM le_term'),
		'not more than 100,000 are kept');
	is(sql('SELECT min(token), max(token) FROM le_term'),
		'25001|125000', 'the oldest are gone');

	setting('history_retention = 0');
	ok($node->poll_query_until('postgres',
			'SELECT le_leader(0) IS NULL AND count(*) = 0 FROM le_term'),
		'a retention of 0 keeps nothing');
	elect('an election');
	is(count_terms(), 0, 'and nothing new');
	sql('ALTER TABLE le_term RENAME TO gone');
	elect('it does not look at the table');
	sql('ALTER TABLE gone RENAME TO le_term');
	setting('history_retention = 7d');
};

subtest 'without a sweeper' => sub {
	setting('sweeper = off');
	fill(3, "now() - interval '8 d'");
	elect('an election');
	is_noted('is noted');
	is( sql("SELECT le_try_acquire(7, 'a', 1)")
		  . sql('SELECT count(*) FROM pg_sleep(0.01), le_sweep(0)'),
		't1', 'a sweep by hand');
	is(sql('SELECT instance, ended_how FROM leader_history WHERE lock_id = 7'),
		'a|expired', 'notes what has run out');
	setting('sweeper = on');
	ok($node->poll_query_until('postgres',
			q{SELECT le_leader(0) IS NULL AND count(*) FILTER (WHERE instance = 'filled') = 0
				FROM le_term}),
		'trimmed when it is there again');
};

# A term that has been renewed, ran out, and is noticed much later.
sub run_out
{
	my ($id, $db) = @_;
	my ($begun, $renewed, $end) = split /\n/, $node->safe_psql($db, qq{
		SELECT le_try_acquire($id, 'node', 600);
		SELECT le_renew($id, 'node');
		SELECT extract(epoch FROM expires_at) FROM leader_lease WHERE id = $id});
	is("$begun$renewed", 'tt', 'a heartbeat');
	return $end;
}

# When has it ended, from there, and what is known of its heartbeats?
sub ended
{
	my ($id, $db, $end) = @_;
	return split /\|/,
	  $node->safe_psql($db, qq{
		SELECT abs(extract(epoch FROM ended) - $end), coalesce(renewals, -1),
			   coalesce(least_left_ms, -1), ended_how
		  FROM leader_history WHERE lock_id = $id ORDER BY token DESC LIMIT 1});
}

subtest 'in a database that nobody calls' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE quiet');
	$node->safe_psql('quiet', 'CREATE EXTENSION leader_election');
	my @end = map { run_out($_, 'quiet') } (1, 2);
	is_swept('another database is swept') foreach (1 .. 3);
	is($node->safe_psql('quiet', "SELECT le_try_acquire(1, 'next')"),
		't', 'noticed by a successor');
	my ($late, $renewals, $least, $how) = ended(1, 'quiet', $end[0]);
	is("$renewals $how", '1 expired', 'heartbeats are known');
	cmp_ok($late, '<', 0.05, 'it has ended with its lease');
	cmp_ok($least, '>', 0, 'least time left');

	# what is over makes room
	setting('sweep_interval = 1h');
	setting('memory_limit = 2MB');
	my ($from, $said) = (1_000_000, '');
	my $session = Session->new($node->connstr('postgres'));
	while ($said eq '' && $from < 2_000_000)
	{
		$from += 1000;
		$said = $session->say(qq{
			SELECT FROM generate_series($from, $from + 999) AS id
			 WHERE NOT le_try_acquire(id, 'node', $long)});
	}
	$session->quit;
	is($said, 'ERROR:  53200', 'memory is full');
	is(sql(qq{SELECT count(*) FILTER (WHERE le_release(id, 'node'))
			  FROM generate_series(1001000, 1001099) AS id}),
		'100', 'some terms are released');
	my $noticed = $node->safe_psql('quiet', 'SELECT extract(epoch FROM clock_timestamp())');
	is($node->safe_psql('quiet', "SELECT le_try_acquire(2, 'next')"),
		't', 'noticed by a successor');
	($late, $renewals, $least, $how) = ended(2, 'quiet', $end[1]);
	is("$renewals $least $how", '-1 -1 expired', 'nothing is known any more');
	cmp_ok($late, '>=', $noticed - $end[1] - 0.001, 'nor when it has ended until it was noticed');
	setting('memory_limit = 64MB');
	setting('sweep_interval = 100ms');
};

subtest 'an end that nobody knows' => sub {
	sql("SELECT le_try_acquire(90, 'node', 1500)", "SELECT le_renew(90, 'node')");
	$node->restart;
	my $start = sql('SELECT extract(epoch FROM epoch_start) FROM le_info()');
	my ($led, $renewed) = ('t', 0);
	while ($led eq 't' && $renewed < $start + 2)
	{
		($led, $renewed) = split /\|/,
		  sql("SELECT le_renew(90, 'node'), extract(epoch FROM clock_timestamp())");
	}
	is($led, 't', 'a term goes on after a restart');
	ok($node->poll_query_until('postgres', 'SELECT le_leader(90) IS NULL'), 'it has run out');
	$node->safe_psql('quiet', 'SELECT le_sweep(0)');    # of all databases
	is(sql("SELECT le_try_acquire(90, 'next')"), 't', 'a successor');
	my ($late) = ended(90, 'postgres', $renewed);
	cmp_ok($late, '>', 1.5, 'it has not ended before its last lease');
};

subtest 'a restart and a crash' => sub {
	my $id = 100;
	foreach my $mode ('fast', 'immediate')
	{
		sql('TRUNCATE le_term');
		my ($renewed, $replaced, $swept) = ($id + 1, $id + 2, $id + 3);
		$id += 3;
		foreach my $term ($renewed, $replaced, $swept)
		{
			is( sql("SELECT le_try_acquire($term, 'node', 1500)",
					"SELECT le_renew($term, 'node')"),
				"t\nt", 'a term');
		}
		elect('a term that has ended');
		$node->stop($mode);
		$node->start;
		is_noted("$mode stop: it is in the history");
		my ($led, $start) = split /\n/,
		  sql("SELECT le_renew($renewed, 'node')",
			'SELECT extract(epoch FROM epoch_start) FROM le_info()');
		is($led . sql("SELECT le_release($renewed, 'node')"),
			'tt', 'renewed and released');
		is( sql(qq{
				SELECT ended_how, renewals IS NULL, least_left_ms IS NULL
				  FROM leader_history WHERE lock_id = $renewed}),
			'released|t|t',
			'the number of heartbeats is not known');
		ok( $node->poll_query_until('postgres', qq{
				SELECT le_leader($replaced) IS NULL AND le_leader($swept) IS NULL}),
			'others have run out');
		is(sql(qq{SELECT le_try_acquire($replaced, 'next')}), 't', 'a successor');
		cmp_ok(sql('SELECT le_sweep(0)'), '>', 0, 'a sweep');
		is( sql(qq{
				SELECT ended_how, renewals IS NULL, least_left_ms IS NULL,
					   abs(extract(epoch FROM ended) - $start - 1.65) < 0.05
				  FROM leader_history WHERE lock_id IN ($replaced, $swept)}),
			"expired|t|t|t\nexpired|t|t|t",
			'their leases could last so long');
	}
};

subtest 'a standby' => sub {
	sql('TRUNCATE le_term');
	elect("term $_") foreach (1 .. 3);
	$node->backup('backup');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'backup', has_streaming => 1);
	$standby->append_conf('postgresql.conf', 'leader_election.promotion_grace = 0');
	$standby->start;
	elect('another one');
	$node->wait_for_catchup($standby);
	my $query = 'SELECT * FROM leader_history ORDER BY token';
	is($standby->safe_psql('postgres', $query), sql($query), 'the same history');
	is($standby->safe_psql('postgres', 'SELECT sum(terms) FROM leader_stat'),
		'4', 'statistics');
	is( $standby->safe_psql('postgres',
			'SET default_transaction_isolation = serializable; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM leader_history'),
		'4', 'in an old snapshot');

	$node->stop;
	$standby->promote;
	is($standby->safe_psql('postgres', "SELECT le_try_acquire(99, 'node'), le_release(99, 'node')"),
		't|t', 'promoted');
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM leader_history'),
		'5', 'history goes on');
	$standby->stop;
};

done_testing();
