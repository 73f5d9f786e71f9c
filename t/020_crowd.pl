# Many who only look, as fast as they can.  Where there is no row, who looks
# holds the lock for a moment, to be sure; so many of them that one always
# does must not keep a vacant lock vacant.

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
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

my @crowd;
foreach (1 .. 8)
{
	my $session = Session->new($node->connstr('postgres'));
	push @crowd, { session => $session, pid => $session->pid };
	$session->send('SELECT count(le_leader(1)) FROM generate_series(1, 30000) AS a, generate_series(1, 30000) AS b'
	);
}
ok( $node->poll_query_until('postgres', q{
		SELECT count(*) = 8 FROM pg_stat_activity
		 WHERE state = 'active' AND query ~ '^SELECT count\(le_leader'}),
	'a crowd that looks');

my $challenger = Session->new($node->connstr('postgres'));
my $tries = 100;
$challenger->say('CREATE TEMP TABLE tries (led boolean)');
$challenger->say(qq{
	DO \$\$ BEGIN
		FOR i IN 1 .. $tries LOOP
			INSERT INTO tries SELECT le_try_acquire(1, 'a', $long);
			COMMIT;
			PERFORM le_release(1, 'a');
			COMMIT;
		END LOOP;
	END \$\$});
# a challenger gives up after some milliseconds, so not each try need succeed
cmp_ok($challenger->say('SELECT count(*) FROM tries WHERE led'),
	'>', $tries / 4, 'a challenger gets the vacant lock');

# one who waits in le_campaign gets it, too, and not only at the end of his wait
$challenger->say('TRUNCATE tries');
$challenger->say(qq{
	DO \$\$ BEGIN
		FOR i IN 1 .. 10 LOOP
			INSERT INTO tries SELECT elected FROM le_campaign(1, 'a', $long, 2000);
			COMMIT;
			PERFORM le_release(1, 'a');
			COMMIT;
		END LOOP;
	END \$\$});
cmp_ok($challenger->say('SELECT count(*) FROM tries WHERE led'),
	'>', 6, 'who waits gets it, too');
$challenger->quit;

is( $node->safe_psql('postgres', q{
		SELECT count(*) FROM pg_stat_activity
		 WHERE state = 'active' AND query ~ '^SELECT count\(le_leader'}),
	'8',
	'the crowd is still there');
$node->safe_psql('postgres', "SELECT pg_terminate_backend($_->{pid})")
  foreach @crowd;
$_->{session}{run}->kill_kill foreach @crowd;

$node->stop;
done_testing();
