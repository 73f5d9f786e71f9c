# Elections cost nothing while nothing changes.  A heartbeat is a store into
# memory and a refused attempt a look at it: 20,000 of them leave no byte of
# WAL, no transaction id, no tuple and no dirty page behind, even with data
# checksums, and a heartbeat does not so much as touch a page.  Each measure
# is taken of a transition too, to see that it can tell the difference.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test
my $many = 20_000;
my $some = 2_000;

# Nobody but the test writes WAL: no autovacuum, no checkpoint by time, and
# wal_level is minimal (the framework's default), so no snapshots for a
# standby either.
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(extra => ['-k']);
$node->append_conf('postgresql.conf', q{
autovacuum = off
checkpoint_timeout = 1d
log_statement = none
wal_level = minimal
max_wal_senders = 0
leader_election.sweep_interval = 1h
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

is( $node->safe_psql('postgres', qq{
		SHOW data_checksums;
		SELECT le_try_acquire(1, 'a', $long);
		SELECT le_renew(1, 'a');
		SELECT le_try_acquire(2, 'a', $long);}),
	"on\nt\nt\nt",
	'one lease that is renewed and one that is not');

# What is not yet paid for: hint bits, and the copy of each page that the
# first of them after a checkpoint makes.
$node->safe_psql('postgres', 'VACUUM');
$node->safe_psql('postgres', 'CHECKPOINT');

# All that calls could leave behind.
sub traces
{
	return $node->safe_psql('postgres', q{
		SELECT pg_current_wal_insert_lsn() AS lsn,
			   pg_snapshot_xmax(pg_current_snapshot()) AS next_xid,
			   n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup,
			   pg_relation_size('le_lease') AS size,
			   pg_relation_size('le_lease_pkey') AS index_size,
			   (SELECT last_value FROM le_token_seq) AS token
		  FROM pg_stat_user_tables WHERE relname = 'le_lease'
		\gx});
}

# Run it twice, because the first run warms up.
sub leaves_no_trace
{
	my ($name, $sql, $expected) = @_;
	$sql .= "\nSELECT FROM pg_stat_force_next_flush();";

	is($node->safe_psql('postgres', $sql), $expected, "$name, first run");
	my $before = traces();
	is($node->safe_psql('postgres', $sql), $expected, "$name, second run");
	is(traces(), $before, 'no trace');
	return;
}

# The buffers that a statement has used, not counting its planning; empty if
# it has not touched any.  The checkpoint makes all pages clean before.
sub buffers
{
	my ($sql) = @_;
	my $plan = $node->safe_psql('postgres',
		"$sql;\nCHECKPOINT;\nEXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF) $sql");
	$plan =~ s/^Planning.*//ms;
	return join("\n", $plan =~ /(Buffers:.*)/g);
}

sub calls
{
	my ($call) = @_;
	return
	  "SELECT count(*) FILTER (WHERE $call) FROM generate_series(1, $many)";
}

my %calls = (
	"le_renew(1, 'a')" => 't',
	"le_renew(1, 'a', le_token(1, 'a'))" => 't',
	"le_try_acquire(1, 'a', $long)" => 't',
	"le_try_acquire(1, 'b')" => 'f',
	"le_renew(1, 'b')" => 'f',
	"le_renew(1, 'a', 7)" => 'f',
	"le_release(1, 'b')" => 'f',
	"le_is_leader(1, 'a')" => 't',
	"le_leader(1) = 'a'" => 't',
	"(le_keep_alive(1, 'a', le_token(1, 'a'))).leads" => 't',
	"(le_keep_alive(1, 'a', 7)).leads" => 'f',
	"(le_campaign(1, 'a')).elected" => 't',
	"(le_campaign(1, 'b')).elected" => 'f',
	"(le_observe(1)).leader_id = 'a'" => 't',
	"(le_campaign(2, 'b')).elected" => 'f',
	"(le_observe(3)).leader_id = 'a'" => '',
	"le_try_acquire(2, 'b')" => 'f',
	"le_renew(2, 'b')" => 'f',
	"le_is_leader(2, 'a')" => 't',
	"le_renew(3, 'a')" => 'f',
	"le_leader(3) = 'a'" => '');

subtest "$many calls in one statement" => sub {
	leaves_no_trace($_, calls($_) . ';', $calls{$_} eq 't' ? $many : 0)
	  foreach (sort keys %calls);
};

subtest "$some statements" => sub {
	leaves_no_trace(
		$_,
		"SELECT $_;\n" x $some,
		join("\n", ($calls{$_}) x $some))
	  foreach ("le_renew(1, 'a')", "le_try_acquire(1, 'b')",
		"le_try_acquire(2, 'b')");
};

# One at the lock of a leader that has renewed, and one that has not.
subtest 'waiting in vain' => sub {
	my $token = $node->safe_psql('postgres', "SELECT le_token(1, 'a')");
	my %waits = (
		"(le_campaign(1, 'b', $long, 10)).elected" => 'f',
		"(le_campaign(2, 'b', $long, 10)).elected" => 'f',
		"(le_observe(1, $token, 10)).token = $token" => 't',
		"(le_observe(3, NULL, 10)).token IS NULL" => 't');
	leaves_no_trace(
		$_,
		"SELECT $_;\n" x 20,
		join("\n", ($waits{$_}) x 20))
	  foreach (sort keys %waits);
};

subtest 'pages' => sub {
	is(buffers(calls($_)), '', "$_ touches none")
	  foreach (grep { /\(1,/ && !/release/ } sort keys %calls);
	foreach my $call (grep { /\([23],/ } sort keys %calls)
	{
		my $used = buffers(calls($call));
		like($used, qr/shared hit=/, "$call reads the row");
		unlike($used, qr/dirtied|written/, 'but dirties no page');
	}
};

subtest 'locks' => sub {
	is( $node->safe_psql('postgres', q{
			SET leader_election.allow_in_transaction = on;
			BEGIN;
			SELECT le_renew(1, 'a'), le_try_acquire(1, 'b') FROM le_campaign(1, 'b');
			SELECT count(*) FROM pg_locks
			 WHERE pid = pg_backend_pid()
			   AND (locktype = 'advisory' OR relation = 'le_lease'::regclass);
			SELECT pg_current_xact_id_if_assigned() IS NULL;
			ROLLBACK;}),
		"t|f\n0\nt",
		'a heartbeat does not lock the table');
	is( $node->safe_psql('postgres', q{
			SET leader_election.allow_in_transaction = on;
			BEGIN;
			SELECT le_try_acquire(2, 'b'), le_renew(2, 'b'), le_leader(3)
			  FROM le_campaign(2, 'b'), le_observe(3);
			SELECT count(*) FROM pg_locks
			 WHERE pid = pg_backend_pid()
			   AND (locktype = 'advisory' OR relation = 'le_lease'::regclass
					AND mode <> 'RowExclusiveLock'
					AND mode <> 'AccessShareLock');
			SELECT pg_current_xact_id_if_assigned() IS NULL;
			ROLLBACK;}),
		"f|f|\n0\nt",
		'and nobody keeps a lock on a lease that he has not changed');
};

# What an open snapshot may still need cannot be vacuumed away, so a renewal
# that is an UPDATE makes a table grow without end.
subtest 'an old snapshot is held open' => sub {
	my $session = Session->new($node->connstr('postgres'));
	is( $session->say(
			'BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM le_lease'
		),
		'2',
		'a snapshot');
	leaves_no_trace("le_renew(1, 'a')", calls("le_renew(1, 'a')") . ';', $many);
	is($session->say('SELECT count(*) FROM leader_lease; COMMIT'),
		'2', 'which sees the truth through the view');
	$session->quit;
};

subtest 'a transition leaves all of them' => sub {
	my $before = traces();
	like(
		buffers("SELECT le_try_acquire(4, 'a', $long), le_release(4, 'a')"),
		qr/dirtied/, 'dirty pages');
	is( $node->safe_psql('postgres', qq{
			SELECT le_try_acquire(4, 'a', $long);
			SELECT le_release(4, 'a');
			SELECT FROM pg_stat_force_next_flush();}),
		"t\nt",
		'begun and ended');

	my $after = traces();
	foreach
	  my $trace ('lsn', 'next_xid', 'n_tup_ins', 'n_tup_del', 'n_dead_tup',
		'token')
	{
		my ($old) = $before =~ /^$trace\|(.*)/m;
		my ($new) = $after =~ /^$trace\|(.*)/m;
		isnt($new, $old, $trace);
	}
};

is( $node->safe_psql('postgres', "SELECT le_renew(1, 'a'), le_renew(2, 'a')"),
	't|t',
	'both leaders still lead');

$node->stop;
done_testing();
