# A standby cannot tell who leads, and says so.  When it is promoted it may
# lack the last grants of the old primary: nobody is leader, and nobody
# becomes it, not even the leader whom a row names, before promotion_grace
# has passed, nor before the length of the lease that a row tells of.  That
# holds for locks of which the promoted server has never heard, and it holds
# over a restart, until a first term has begun on the new timeline.  It holds
# where the extension is created after the promotion, too: the old primary may
# have had it, in a database that looks empty here.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test
my $short = 1000;      # shorter than the grace
my $middle = 3000;     # longer than the grace
my $grace = 2000;

# the locks
my ($old, $longer, $longest, $released, $never, $lost, $waited) = 1 .. 7;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', qq{
leader_election.promotion_grace = ${grace}ms
leader_election.sweep_interval = 1h
});
$primary->start;

# Each database notes for itself that a term has begun on a timeline.
$primary->safe_psql('postgres', 'CREATE DATABASE other');
$primary->safe_psql($_, 'CREATE EXTENSION leader_election')
  foreach ('postgres', 'other');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
my $bold = PostgreSQL::Test::Cluster->new('bold');
$bold->init_from_backup($primary, 'backup', has_streaming => 1);
$bold->append_conf('postgresql.conf', 'leader_election.promotion_grace = 0');
$bold->start;

my $third = PostgreSQL::Test::Cluster->new('third');
$third->init_from_backup($primary, 'backup', has_streaming => 1);
$third->append_conf('postgresql.conf', 'leader_election.promotion_grace = 5s');
$third->start;

sub sqlstate
{
	my ($node, $sql) = @_;
	my (undef, undef, $err) = $node->psql('postgres', $sql,
		extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
	return $err =~ /ERROR:\s+(\w{5})/ ? $1 : "no error: $err";
}

# Milliseconds from the start of the epoch to that of the term.
sub begun_after
{
	my ($node, $db, $lock) = @_;
	return $node->safe_psql($db, qq{
		SELECT extract(epoch FROM created_at - epoch_start) * 1000
		  FROM leader_lease, le_info() WHERE id = $lock});
}

# The server's length of a lease or a grace.  The clocks' rates may differ a
# little, hence one per mill.
sub kept_for
{
	my ($ms) = @_;
	return $ms * 11 / 10 * 0.999;
}

# What nobody can do after a promotion, whoever he is.  All in one statement:
# it is the first call and so begins the epoch, and no slow machine lets the
# grace run out in between.
sub nobody_leads
{
	my ($node, $db, $token, $name) = @_;
	is( $node->safe_psql($db, qq{
			SELECT le_try_acquire($old, 'new', $long),
				   le_try_acquire($old, 'old', $short),
				   le_renew($old, 'old', $token),
				   le_renew($old, 'old'),
				   le_release($old, 'old', $token),
				   le_is_leader($old, 'old', $token),
				   le_leader($old) IS NULL,
				   le_token($old, 'old') IS NULL,
				   le_try_acquire($longest, 'old', $long),
				   le_renew($longest, 'old'),
				   le_try_acquire($released, 'new', $long),
				   le_try_acquire($never, 'new', $long),
				   (SELECT string_agg(state, ' ') FROM leader_lease)}),
		'f|f|f|f|f|f|t|t|f|f|f|f|grace grace grace',
		$name);
	return;
}

my %token;
foreach my $db ('postgres', 'other')
{
	is( $primary->safe_psql($db, qq{
			SELECT le_try_acquire($old, 'old', $short);
			SELECT le_try_acquire($longer, 'old', $middle);
			SELECT le_try_acquire($longest, 'old', $long),
				   le_renew($longest, 'old');
			SELECT le_try_acquire($released, 'old', $long);
			SELECT le_release($released, 'old');}),
		"t\nt\nt|t\nt\nt",
		"leases on the primary, database $db");
	$token{$db} = $primary->safe_psql($db,
		"SELECT token FROM leader_lease WHERE id = $old");
}
$primary->wait_for_catchup($_) foreach ($standby, $bold);

subtest 'standby' => sub {
	is(sqlstate($standby, "SELECT $_"), '25006', $_)
	  foreach (
		"le_try_acquire($longest, 'old', $long)",
		"le_try_acquire($never, 'new')",
		"le_renew($longest, 'old')",
		"le_renew($never, 'new')",
		"le_release($longest, 'old')",
		"le_campaign($never, 'new', wait_ms => 60000)",
		"le_keep_alive($longest, 'old', 1)",
		"le_observe($longest, wait_ms => 60000)",
		'le_sweep()',
		"le_is_leader($longest, 'old')",
		"le_leader($longest)",
		"le_token($longest, 'old')",
		"le_guard($longest, 'old')",
		"le_protect('le_lease', $longest)",
		"le_unprotect('le_lease')");

	my (undef, undef, $err) =
	  $standby->psql('postgres', "SELECT le_try_acquire($never, 'new')");
	like($err, qr/HINT:  .*target_session_attrs=read-write/,
		'the hint says where to go');

	is( $standby->safe_psql('postgres', q{
			SELECT epoch IS NULL, epoch_start IS NULL, timeline IS NULL,
				   last_sweep IS NULL, entries, version <> '',
				   grace_remaining_ms IS NULL, warnings[1]
			  FROM le_info()}),
		"t|t|t|t|0|t|t|leader_election.promotion_grace ($grace ms) is shorter than a lease ($long ms)",
		'le_info answers, knows no epoch, and judges its own grace');
	is($standby->safe_psql('postgres', 'SELECT count(*) FROM leader_waiting'),
		'0', 'nobody waits there');
	is( $bold->safe_psql('postgres', 'SELECT warnings[1] FROM le_info()'),
		"leader_election.promotion_grace (0 ms) is shorter than a lease ($long ms)",
		'each its own');
	is( $standby->safe_psql('postgres', q{
			SELECT id, leader_id, state, lease_ms, expires_at IS NULL,
				   remaining_ms IS NULL, renewed_at IS NULL
			  FROM leader_lease ORDER BY id}),
		"$old|old|standby|$short|t|t|t\n"
		  . "$longer|old|standby|$middle|t|t|t\n"
		  . "$longest|old|standby|$long|t|t|t",
		'leader_lease shows terms without an end');
};

# The standby misses a grant.
$standby->stop;
is( $primary->safe_psql('postgres',
		"SELECT le_try_acquire($lost, 'old', $short)"),
	't',
	'a grant that the standby never hears of');
my $lost_token =
  $primary->safe_psql('postgres', "SELECT token FROM leader_lease WHERE id = $lost");
$primary->stop('immediate');
$standby->start;

subtest 'promotion with a grace' => sub {
	my $session = Session->new($standby->connstr('postgres'));
	is($session->say('SELECT epoch IS NULL FROM le_info()'),
		't', 'a session on the standby');

	$standby->promote;

	nobody_leads($standby, 'postgres', $token{postgres},
		'nobody leads, and nobody becomes leader');
	is( $standby->safe_psql('postgres',
			"SELECT le_try_acquire($lost, 'new', $long)"),
		'f',
		'nor where a grant was lost');
	is( $session->say(
			"SELECT timeline, le_try_acquire($never, 'new') FROM le_info()"),
		'2|f',
		'the session has noticed');
	$session->quit;

	foreach my $lock ($old, $released, $never, $lost)
	{
		ok( $standby->poll_query_until('postgres',
				"SELECT le_try_acquire($lock, 'new', $long)"),
			"lock $lock has a leader again");
		cmp_ok(begun_after($standby, 'postgres', $lock),
			'>=', kept_for($grace), 'not before the grace has passed');
	}
	cmp_ok(
		$standby->safe_psql('postgres', "SELECT le_token($old, 'new')"),
		'>', $token{postgres}, 'its token is larger than the old one');
	cmp_ok(
		$standby->safe_psql('postgres', "SELECT le_token($lost, 'new')"),
		'>', $lost_token, 'and than one that was lost');
	is( $standby->safe_psql('postgres', qq{
			SELECT le_renew($old, 'old', $token{postgres}),
				   le_renew($old, 'old'),
				   le_renew($lost, 'old', $lost_token),
				   le_renew($old, 'new')}),
		'f|f|f|t',
		'the old leaders are deposed');

	ok( $standby->poll_query_until('postgres',
			"SELECT le_try_acquire($longer, 'new', $long)"),
		'a lease longer than the grace is replaced');
	cmp_ok(begun_after($standby, 'postgres', $longer),
		'>=', kept_for($middle), 'not before its own length has passed');

	is( $standby->safe_psql('postgres', qq{
			SELECT le_try_acquire($longest, 'new'),
				   le_try_acquire($longest, 'old', $long),
				   le_renew($longest, 'old'), le_leader($longest) IS NULL;
			SELECT state FROM leader_lease WHERE id = $longest;}),
		"f|f|f|t\ngrace",
		'a very long one is still waited for');
};

subtest 'restart after the promotion' => sub {
	my $new_token =
	  $standby->safe_psql('postgres', "SELECT le_token($old, 'new')");

	$standby->restart;

	nobody_leads($standby, 'other', $token{other},
		'where no term has begun on the new timeline, the grace begins anew');
	is( $standby->safe_psql('postgres', qq{
			SELECT le_try_acquire(99, 'new', $long),
				   le_renew($old, 'new', $new_token),
				   le_try_acquire($longest, 'new')}),
		't|t|f',
		'where one has, it imposes nothing on vacant locks');

	ok( $standby->poll_query_until('other',
			"SELECT le_try_acquire($never, 'new', $long)"),
		'a leader after the grace');
	cmp_ok(begun_after($standby, 'other', $never),
		'>=', kept_for($grace), 'not before it has passed');
	is( $standby->safe_psql('other',
			"SELECT le_try_acquire($released, 'new', $long)"),
		't',
		'then the next one too');
};
$standby->stop;

subtest 'promotion without a grace' => sub {
	$bold->promote;

	is( $bold->safe_psql('postgres', qq{
			SELECT le_try_acquire($released, 'new', $long),
				   le_try_acquire($never, 'new', $long);
			SELECT le_try_acquire($longer, 'new', $long),
				   le_renew($longer, 'old'),
				   le_try_acquire($longer, 'old', $middle),
				   le_leader($longer) IS NULL,
				   (SELECT state FROM leader_lease WHERE id = $longer)}),
		"t|t\nf|f|f|t|grace",
		'vacant locks have leaders at once, the others have none');
	ok( $bold->poll_query_until('postgres',
			"SELECT le_try_acquire($longer, 'new', $long)"),
		'a leader again');
	cmp_ok(begun_after($bold, 'postgres', $longer),
		'>=', kept_for($middle), 'not before the old lease has passed');
};
$bold->stop;

subtest 'created after the promotion' => sub {
	$third->promote;
	is( $third->safe_psql('postgres', qq{
			DROP EXTENSION leader_election;
			CREATE EXTENSION leader_election;
			SELECT le_try_acquire($never, 'new', $long);
			SELECT grace_remaining_ms BETWEEN 1 AND 5500 FROM le_info();}),
		"f\nt",
		'dropped and created anew, within the grace');

	# who waits for a lock of which nothing is known waits for the grace, and
	# is told of it, whether or not it is the first in the list
	my $waiter = Session->new($third->connstr('postgres'));
	$waiter->send("SELECT elected FROM le_campaign($waited, 'first', $long, 60000)");
	$third->poll_query_until('postgres', 'SELECT count(*) = 1 FROM leader_waiting');
	is( $third->safe_psql('postgres', qq{
			SELECT elected, leader_id, remaining_ms BETWEEN 1 AND 5500
			FROM le_campaign($waited, 'second', $long, 50);
			SELECT leader_id, remaining_ms BETWEEN 1 AND 5500, state
			FROM le_observe($waited)}),
		"f||t\n|t|grace",
		'who waits is told of the grace');

	$third->safe_psql('postgres', 'CREATE DATABASE fresh');
	$third->safe_psql('fresh', 'CREATE EXTENSION leader_election');
	foreach my $db ('postgres', 'fresh')
	{
		ok( $third->poll_query_until($db,
				"SELECT le_try_acquire($never, 'new', $long)"),
			"a leader in database $db");
		cmp_ok(begun_after($third, $db, $never),
			'>=', kept_for(5000), 'not before the grace has passed');
		is( $third->safe_psql($db, "SELECT grace_remaining_ms FROM le_info()"),
			'0', 'which le_info says, too');
	}

	is($waiter->receive, 't', 'who waits leads after the grace');
	cmp_ok(begun_after($third, 'postgres', $waited),
		'>=', kept_for(5000), 'not before it has passed');
	$waiter->quit;

	$third->safe_psql('postgres', 'CREATE DATABASE later');
	is( $third->safe_psql('later', qq{
			CREATE EXTENSION leader_election;
			SELECT le_try_acquire($never, 'new', $long)}),
		't',
		'created after the grace, there is nothing to wait for');
};
$third->stop;

done_testing();
