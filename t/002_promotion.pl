# An asynchronous standby may lack the last grants of its primary.  So after a
# promotion no old term is live, not even for the holder it names, and nobody
# becomes leader before promotion_grace has passed; then with a larger token.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', 'leader_election.promotion_grace = 3s');
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION leader_election');
$primary->backup('base');

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
my $second = PostgreSQL::Test::Cluster->new('second');
$second->init_from_backup($primary, 'base', has_streaming => 1);
$second->append_conf('postgresql.conf', 'leader_election.promotion_grace = 0');
$second->start;

# Locks 1 and 2 have rows, lock 3 had none when the stream was lost.
is( $primary->safe_psql('postgres',
		"SELECT le_try_acquire(1, 'old', 1000), le_try_acquire(2, 'old', 6000), le_renew(2, 'old')"),
	't|t|t',
	'leaders on the primary');
my $token = $primary->safe_psql('postgres', "SELECT token FROM leader_lease WHERE id = 2");
$primary->wait_for_catchup($_) for ($standby, $second);

# ---------------------------------------------------------------------
# On a standby the functions that speak of a lease refuse, those that show
# the server do not.
# ---------------------------------------------------------------------

for my $call (
	"le_try_acquire(1, 'old', 1000)", "le_try_acquire(9, 'new', 1000)",
	"le_renew(1, 'old')", "le_release(1, 'old')",
	"le_is_leader(1, 'old')", "le_leader(1)",
	"le_token(1, 'old')", "le_sweep()")
{
	my ($status, $out, $error) =
	  $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($error, qr/ERROR:  25006: cannot execute le_\w+\(\) during recovery/,
		"standby: $call");
}
is( $standby->safe_psql('postgres',
		'SELECT id, leader_id, state, expires_at, remaining_ms, lease_ms FROM leader_lease ORDER BY id'),
	"1|old|standby|||1000\n2|old|standby|||6000",
	'standby: the view answers');
is( $standby->safe_psql('postgres',
		'SELECT version, epoch IS NULL, timeline IS NULL, sweeper_pid IS NULL FROM le_info()'),
	'1.0|t|t|t',
	'standby: le_info() answers');

# ---------------------------------------------------------------------
# The primary is lost.
# ---------------------------------------------------------------------

$primary->stop('immediate');
$standby->promote;

# Seconds from the epoch's start to the start of a lock's term
sub waited
{
	my ($node, $id) = @_;
	return $node->safe_psql('postgres',
		"SELECT extract(epoch FROM created_at - epoch_start)
		FROM leader_lease, le_info() WHERE id = $id");
}

# One statement, so that all of it is within the grace; its first call is the
# first after the promotion, and begins the epoch.
is( $standby->safe_psql('postgres',
		"SELECT le_leader(1) IS NULL, le_leader(2) IS NULL,
			le_renew(2, 'old', $token), le_try_acquire(2, 'old', 6000), le_release(2, 'old'),
			le_try_acquire(1, 'new', 1000), le_try_acquire(2, 'new', 1000), le_try_acquire(3, 'new', 1000),
			le_sweep(0),
			(SELECT string_agg(id || ' ' || state, ', ' ORDER BY id) FROM leader_lease)"),
	't|t|f|f|f|f|f|f|0|1 grace, 2 grace',
	'promoted: nobody leads, nobody gets in, not even the old leader');
is($standby->safe_psql('postgres', 'SELECT timeline FROM le_info()'),
	2, 'on a new timeline');

ok( $standby->poll_query_until('postgres', "SELECT le_try_acquire(3, 'new', 600000)"),
	'a lock without a row is taken at last');
cmp_ok(waited($standby, 3), '>=', 3 * 33 / 32, 'but not before the grace');
ok( $standby->poll_query_until('postgres', "SELECT le_try_acquire(1, 'new', 600000)"),
	'so is one whose lease is shorter than the grace');
cmp_ok(waited($standby, 1), '>=', 3 * 33 / 32, 'but not before the grace');
ok( $standby->poll_query_until('postgres', "SELECT le_try_acquire(2, 'new', 600000)"),
	'so is one whose lease is longer');
cmp_ok(waited($standby, 2), '>=', 6 * 33 / 32, 'but not before its own length');
is( $standby->safe_psql('postgres',
		"SELECT le_token(2, 'new') > $token, le_renew(2, 'old', $token), le_renew(2, 'new')"),
	't|f|t',
	'the token has grown, the deposed leader is refused');

# Now that a term has begun on this timeline, a restart is only a restart.
$standby->restart;
is( $standby->safe_psql('postgres',
		"SELECT le_leader(2), le_renew(2, 'new'), le_try_acquire(4, 'new', 600000)"),
	'new|t|t',
	'a restart on the new timeline brings no grace');

# ---------------------------------------------------------------------
# promotion_grace = 0, for clusters that promote only synchronous standbys
# ---------------------------------------------------------------------

$second->promote;
is( $second->safe_psql('postgres',
		"SELECT le_leader(2) IS NULL, le_renew(2, 'old', $token), le_try_acquire(2, 'new', 1000),
			le_try_acquire(1, 'new', 1000), le_try_acquire(3, 'new', 600000)"),
	't|f|f|f|t',
	'no grace: a lock without a row is vacant, one with a row is not yet');
ok( $second->poll_query_until('postgres', "SELECT le_try_acquire(2, 'new', 600000)"),
	'the other is taken at last');
cmp_ok(waited($second, 2), '>=', 6 * 33 / 32, 'one lease after the promotion, nothing sooner');

# ---------------------------------------------------------------------
# The grace is not forgotten by a restart before the first new term.
# ---------------------------------------------------------------------

my $third = PostgreSQL::Test::Cluster->new('third');
$third->init_from_backup($primary, 'base', has_streaming => 0);
$third->append_conf('postgresql.conf', 'leader_election.promotion_grace = 600s');
$third->set_standby_mode;
$third->start;
$third->promote;
is( $third->safe_psql('postgres', "SELECT le_try_acquire(1, 'new', 1000)"),
	'f', 'grace after a promotion');
$third->restart;
is( $third->safe_psql('postgres', "SELECT le_try_acquire(1, 'new', 1000)"),
	'f', 'and again after a restart on the new timeline');
$third->append_conf('postgresql.conf', 'leader_election.promotion_grace = 100ms');
$third->reload;
ok( $third->poll_query_until('postgres', "SELECT le_try_acquire(1, 'new', 600000)"),
	'a term begins');
is( $third->safe_psql('postgres', "SELECT le_release(1, 'new')"), 't', 'and ends');
$third->append_conf('postgresql.conf', 'leader_election.promotion_grace = 600s');
$third->restart;
is( $third->safe_psql('postgres', "SELECT le_try_acquire(1, 'new', 1000)"),
	't', 'from then on a restart brings no grace');

done_testing();
