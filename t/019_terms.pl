# What becomes of a term is the transaction's business.  A term that begins
# outside of a block is committed with its statement, also as the first one of
# a pipeline: the client has been told true, and a later statement that fails
# must not undo it.  And each term that begins, ends or has run out is logged,
# if that is asked for, when it is committed.

use strict;
use warnings;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = 600_000;    # outlives the test

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
leader_election.sweep_interval = 1h
leader_election.log_terms = on
log_min_messages = log
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

# Send statements in one pipeline; returns what went wrong.
sub pipeline
{
	my (@statements) = @_;
	my $script = "${PostgreSQL::Test::Utils::tmp_check}/pipeline.sql";
	unlink $script;
	append_to_file($script,
		join("\n", '\startpipeline', (map { "$_;" } @statements), '\endpipeline', ''));
	my ($out, $err);
	IPC::Run::run(
		[
			'pgbench', '-n', '-t', '1', '-M', 'extended', '-f', $script,
			'-d', $node->connstr('postgres')
		],
		'>', \$out, '2>', \$err);
	return $err;
}

sub leads
{
	my ($lock, $expected, $name) = @_;
	is( $node->safe_psql('postgres', "SELECT coalesce(le_leader($lock), 'nobody')"),
		$expected, $name);
	return;
}

subtest 'pipeline' => sub {
	like(
		pipeline("SELECT le_try_acquire(1, 'a', $long)", 'SELECT 1 / 0'),
		qr/division by zero/, 'a pipeline that fails after its first statement');
	leads(1, 'a', 'which was committed by then');

	like(
		pipeline('SELECT 1', "SELECT le_try_acquire(2, 'a', $long)"),
		qr/inside a transaction block/, 'in the second statement it is a block');
	leads(2, 'nobody', 'and begins no term');

	unlike(
		pipeline("SELECT le_try_acquire(3, 'a', $long)",
			"SELECT le_renew(3, 'a')",
			"SELECT le_release(3, 'a')"),
		qr/ERROR/, 'one that works');
	leads(3, 'nobody', 'has done all it was told');

	like(
		pipeline("SELECT le_release(1, 'a')", 'SELECT 1 / 0'),
		qr/division by zero/, 'a release that a later statement undoes');
	leads(1, 'a', 'has not happened');
	like(
		pipeline("SELECT le_transfer(1, 'a', le_token(1, 'a'), 'b')", 'SELECT 1 / 0'),
		qr/division by zero/, 'a transfer that begins a term');
	leads(1, 'b', 'has been committed with its statement');

	like(
		pipeline('SELECT le_revoke(1)', 'SELECT 1 / 0'),
		qr/division by zero/, 'so is a revocation');
	leads(1, 'nobody', 'before the statement that fails');
	like(
		pipeline('SELECT 1', 'SELECT le_revoke(1, true)'),
		qr/le_revoke\(\) cannot run inside a transaction block/,
		'in the second statement it is a block');
	leads(1, 'nobody', 'and revokes nothing');
	$node->safe_psql('postgres', qq{
		SELECT le_revoke(1, true);
		SELECT le_try_acquire(1, 'c', $long);
		SELECT le_transfer(1, 'c', le_token(1, 'c'), 'a')});
	leads(1, 'a', 'led by the first one again');
};

# What has been logged since an offset in the log
sub terms
{
	my ($offset) = @_;
	my @terms = slurp_file($node->logfile, $offset) =~
	  /LOG:  term of leadership (\w+: lock \d+, instance ".*?"), token \d+$/mg;
	return join("\n", @terms);
}

subtest 'log' => sub {
	my $offset = -s $node->logfile;
	my ($rc, $out, $err) = $node->psql('postgres', qq{
		SET client_min_messages = log;
		SELECT le_try_acquire(11, 'a', $long);
		SELECT le_try_acquire(11, 'b', $long), le_renew(11, 'a');
		SELECT le_release(11, 'a');
		SELECT le_try_acquire(11, 'b', 10);
		DO \$\$ BEGIN WHILE le_leader(11) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END \$\$;
		SELECT le_try_acquire(11, 'c', 10);
		DO \$\$ BEGIN WHILE le_leader(11) IS NOT NULL LOOP PERFORM pg_sleep(0.001); END LOOP; END \$\$;
		SELECT le_sweep(0)});
	unlike($err, qr/term of leadership/, 'the client is told nothing of it');
	is( terms($offset),
		join("\n",
			'began: lock 11, instance "a"',
			'released: lock 11, instance "a"',
			'began: lock 11, instance "b"',
			'expired: lock 11, instance "b"',
			'began: lock 11, instance "c"',
			'expired: lock 11, instance "c"'),
		'each term that began, ended or ran out');

	$offset = -s $node->logfile;
	$node->psql('postgres', qq{
		SELECT le_try_acquire(14, 'a', $long);
		SELECT le_transfer(14, 'a', le_token(14, 'a'), 'b');
		SELECT le_revoke(14);
		SELECT le_revoke(14, true);
		SELECT le_try_acquire(14, 'c', $long);
		SELECT le_revoke(14, true);
		SELECT le_try_acquire(14, 'd', $long);
		SELECT le_release(14, 'd', hold_ms => $long);
		SELECT le_revoke(14, true);
		SELECT le_try_acquire(14, 'e', 100);
		SELECT le_release(14, 'e', hold_ms => 1000);
		DO \$\$ BEGIN WHILE (SELECT state <> 'expired' FROM leader_lease WHERE id = 14) LOOP PERFORM pg_sleep(0.01); END LOOP; END \$\$;
		SELECT le_sweep(0)});
	is( terms($offset),
		join("\n",
			'began: lock 14, instance "a"',
			'transferred: lock 14, instance "a"',
			'began: lock 14, instance "b"',
			'revoked: lock 14, instance "b"',
			'began: lock 14, instance "c"',
			'revoked: lock 14, instance "c"',
			'began: lock 14, instance "d"',
			'released: lock 14, instance "d"',
			'began: lock 14, instance "e"',
			'released: lock 14, instance "e"'),
		'each once, however it ended, and whatever kept the lock afterwards');

	$offset = -s $node->logfile;
	$node->psql('postgres', qq{
		BEGIN;
		SELECT le_release(1, 'a');
		ROLLBACK;
		BEGIN;
		SELECT le_transfer(1, 'a', le_token(1, 'a'), 'b');
		SELECT le_release(1, 'b', hold_ms => $long);
		ROLLBACK;
		SET leader_election.allow_in_transaction = on;
		BEGIN;
		SAVEPOINT s;
		SELECT le_try_acquire(12, 'a', $long);
		ROLLBACK TO s;
		SELECT le_try_acquire(13, 'a', $long);
		COMMIT;});
	is(terms($offset), 'began: lock 13, instance "a"', 'and none that did not');

	$node->append_conf('postgresql.conf', 'leader_election.log_terms = off');
	$node->reload;
	$node->poll_query_until('postgres',
		"SELECT current_setting('leader_election.log_terms') = 'off'");
	$offset = -s $node->logfile;
	$node->safe_psql('postgres', "SELECT le_release(13, 'a')");
	is(terms($offset), '', 'nothing without the setting');
};

$node->stop;
done_testing();
