# Twenty databases elect on a default server, which has eight worker slots.  All
# are swept, in turns, by one worker at a time and a start a second at most,
# and those who want workers for their own work get them: a parallel query, and
# a new subscription.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test
my @databases = map { "election_$_" } 1 .. 20;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');

# The test's servers have fewer workers than a default one.  debug1 tells of
# each worker that is registered.
$node->append_conf('postgresql.conf', q{
max_worker_processes = 8
max_connections = 100
max_wal_senders = 10
max_logical_replication_workers = 4
log_min_messages = debug1
log_statement = none
log_line_prefix = '%m [%p] %b: '
leader_election.sweep_interval = 100ms
leader_election.sweep_jitter = 0
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');
$node->safe_psql('postgres', "CREATE DATABASE $_ TEMPLATE postgres")
  foreach @databases;

# The databases whose sweeper has been registered, in this order.
sub registered
{
	$node->safe_psql('template1', 'SELECT');
	return slurp_file($node->logfile) =~
	  /\bregistering background worker "leader_election sweeper of database (\d+)"/g;
}

# Many heartbeats in each database, and in the first one more than in the others.
my @leaders;
my $start = time;
foreach my $db (@databases, ($databases[0]) x 3)
{
	my $session = Session->new($node->connstr($db));
	$session->say("SELECT le_try_acquire(1, 'a', $long)");
	$session->send(q{
		DO $$
		BEGIN
			LOOP
				PERFORM le_renew(1, 'a'), pg_sleep(0.02);
				COMMIT;
			END LOOP;
		END $$});
	push @leaders, $session;
}

my $begun = () = registered();

subtest 'a parallel query gets its workers' => sub {
	$node->safe_psql('postgres', q{
		CREATE TABLE big AS SELECT generate_series(1, 100000) AS n;
		ANALYZE big});
	my $parallel = q{
		SET parallel_setup_cost = 0;
		SET parallel_tuple_cost = 0;
		SET min_parallel_table_scan_size = 0;
		EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) SELECT count(*) FROM big};

	# each time, whoever sweeps just now
	my $launched = () =
	  join("\n", map { $node->safe_psql('postgres', $parallel) } 1 .. 20) =~
	  /Workers Launched: 2/g;
	is($launched, 20, 'all of them');
};

subtest 'a new subscription starts' => sub {
	$node->safe_psql('postgres', q{
		CREATE TABLE news (n int PRIMARY KEY);
		INSERT INTO news SELECT generate_series(1, 10);
		CREATE PUBLICATION news FOR TABLE news;
		SELECT pg_create_logical_replication_slot('news', 'pgoutput')});
	$node->safe_psql('postgres', 'CREATE DATABASE reader');
	my ($host, $port) = ($node->host, $node->port);
	$node->safe_psql('reader', qq{
		CREATE TABLE news (n int PRIMARY KEY);
		CREATE SUBSCRIPTION news CONNECTION 'host=$host port=$port dbname=postgres' PUBLICATION news
			WITH (create_slot = false, slot_name = 'news')});
	ok($node->poll_query_until('reader', 'SELECT count(*) = 10 FROM news'),
		'copies what is there');
	$node->safe_psql('postgres', 'INSERT INTO news VALUES (11)');
	ok($node->poll_query_until('reader', 'SELECT count(*) = 11 FROM news'),
		'and follows');
	$node->safe_psql('reader', q{
		ALTER SUBSCRIPTION news DISABLE;
		ALTER SUBSCRIPTION news SET (slot_name = NONE);
		DROP SUBSCRIPTION news});
};

subtest 'each has its turn' => sub {
	foreach my $db (@databases)
	{
		ok( $node->poll_query_until($db,
				'SELECT last_sweep IS NOT NULL FROM le_info()'),
			"$db is swept");
	}

	# one may have been on its way when the last one came
	my %times;
	my @again = grep { $times{$_}++ } (registered())[ $begun + 1 .. $begun + 15 ];
	is("@again", '', 'none again before the others');
};

# A start a second; the first may have come at once.
my $started = () = registered();
my $elapsed = time - $start;
cmp_ok($started, '<=', $elapsed + 2,
	"no more than a start a second: $started in $elapsed s");
cmp_ok($started, '>=', @databases, 'and at least one for each database');
unlike($node->safe_psql('postgres', 'SELECT warnings FROM le_info()'),
	qr/slot/, 'le_info warns of no missing slot');

$node->stop('fast');
unlike(slurp_file($node->logfile),
	qr/sweeper.*(?:FATAL|ERROR|WARNING|LOG):/, 'the log tells nothing');
foreach (@leaders)
{
	eval { $_->quit };
}
done_testing();
