# What a leader or an operator has done to a term outlives the server: a hold, a
# revocation and its ban go on after a restart and come through a promotion, as
# safe as a lease, and none lasts longer than it was meant to.  Who waits is
# handed the lock, and told.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $long = 600_000;    # outlives the test
my $short = 1000;
my $grace = 3000;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', qq{
leader_election.promotion_grace = ${grace}ms
leader_election.sweep_interval = 1h
max_connections = 30
});
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION leader_election;
	CREATE ROLE one LOGIN;
	CREATE ROLE two LOGIN;
	GRANT EXECUTE ON FUNCTION le_campaign, le_transfer, le_renew, le_token TO one, two;});

sub query
{
	my ($sql, $expected, $name, $node) = @_;
	is(($node // $primary)->safe_psql('postgres', $sql), $expected, $name);
	return;
}

sub state_of
{
	my ($lock, $node) = @_;
	return $node->safe_psql('postgres',
		"SELECT state FROM leader_lease WHERE id = $lock");
}

# A session that waits for a lock, when it does.
sub candidate
{
	my ($lock, $instance, %args) = @_;
	my $session = Session->new($primary->connstr('postgres') . ' user=' . ($args{role} // 'one'));
	my $lease = $args{lease} // $short;
	my $priority = $args{priority} // 0;
	$session->send("SELECT elected, token, valid_for_ms >= $long, leader_id, resign_requested
		FROM le_campaign($lock, '$instance', $lease, wait_ms => 60000, priority => $priority)");
	ok( $primary->poll_query_until('postgres',
			"SELECT count(*) = 1 FROM leader_waiting WHERE instance = '$instance'"),
		"$instance waits");
	return $session;
}

subtest 'to somebody who waits' => sub {
	my $leader = Session->new($primary->connstr('postgres') . ' user=one');
	my $token = $leader->say("SELECT token FROM le_campaign(1, 'a', $long)");

	my $b = candidate(1, 'b');
	my $c = candidate(1, 'c', priority => 1);
	my $d = candidate(1, 'd', role => 'two');
	query("SELECT le_try_acquire(9, 'a', $long)", 't', 'another lock');
	my $other = candidate(9, 'other', priority => 9);
	is( $primary->safe_psql('postgres',
			"SELECT waiting FROM le_keep_alive(1, 'a', $token)"),
		't', 'which the leader is told');

	is($leader->say("SELECT le_transfer(1, 'a', $token, 'd')"),
		't', 'handed over to one by its name, whose role is another one');
	like($d->receive, qr/42501/, 'which cannot lead a term of this role');
	my $of_d = $leader->say("SELECT le_token(1, 'd')");
	is($leader->say("SELECT le_transfer(1, 'd', $of_d, 'a')"), 't', 'back');

	my $last = $token = $leader->say("SELECT le_token(1, 'a')");
	is($leader->say("SELECT le_transfer(1, 'a', $token)"),
		't', 'to whoever is first');
	like($c->receive, qr/\At\|(\d+)\|t\|c\|f\z/, 'that is by priority');
	query("SELECT token > $last FROM leader_lease WHERE id = 1 AND leader_id = 'c'",
		't', 'its term is a later one');

	my $e = candidate(1, 'e', role => 'two');
	my $own = candidate(1, 'c2');
	$token = $leader->say("SELECT le_token(1, 'c')");
	is($leader->say("SELECT le_transfer(1, 'c', $token)"),
		't', 'once more');
	like($b->receive, qr/\At\|\d+\|t\|b\|f\z/, 'then in the order of arrival');
	$token = $leader->say("SELECT le_token(1, 'b')");
	is($leader->say("SELECT le_transfer(1, 'b', $token)"),
		't', 'and once more');
	like($e->receive, qr/\At\|\d+\|t\|e\|f\z/,
		'of another role: the term is its own');
	query("SELECT leader_role FROM leader_lease WHERE id = 1", 'two',
		'as the view says');
	is($leader->say("SELECT le_renew(1, 'e')"), 'ERROR:  42501',
		'and not of the role that handed over');

	my $second = Session->new($primary->connstr('postgres') . ' user=two');
	$token = $second->say("SELECT le_token(1, 'e')");
	is($second->say("BEGIN; SELECT le_transfer(1, 'e', $token); ROLLBACK"),
		't', 'undone');
	is($second->say("SELECT le_renew(1, 'e', $token)"), 't', 'it leads still');
	ok(!$own->done, 'and who was first waits still');
	is($second->say("SELECT le_transfer(1, 'e', $token)"), 't', 'done');
	like($own->receive, qr/\At\|\d+\|t\|c2\|f\z/, 'the last');

	$token = $leader->say("SELECT token FROM le_campaign(2, 'a', $long)");
	$leader->say("SELECT le_transfer(2, 'a', $token, 'b')");
	my $waits = candidate(2, 'w');
	$primary->safe_psql('postgres', q{
		SELECT le_transfer(2, 'b', le_token(2, 'b'), 'w')});
	like($waits->receive, qr/\At\|\d+\|t\|w\|f\z/, 'by its name');
	query("SELECT le_transfer(2, 'w', le_token(2, 'w'))",
		'f', 'and when nobody waits any more, nothing happens');
	query("SELECT le_leader(2), le_renew(2, 'w')", 'w|t', 'it leads still');

	# Who waits is elected when a hold is over, or lifted, or a lease revoked.
	# (What is short begins when it waits, and is looked at in the same moment.)
	foreach my $end ("le_release(3, 'a', hold_ms => 2 * $short)", 'le_revoke(3)')
	{
		query("SELECT elected FROM le_campaign(3, 'x', $long)", 't', 'a leader');
		my $patient = candidate(3, 'p', lease => $long);
		$primary->safe_psql('postgres', qq{
			DO \$\$ BEGIN
				PERFORM le_release(3, 'x'), le_try_acquire(3, 'a', $short);
				COMMIT;
				ASSERT $end, 'ended';
				COMMIT;
				ASSERT le_leader(3) IS NULL, 'nobody leads';
				CREATE TABLE kept AS SELECT expires_at AS until FROM leader_lease WHERE id = 3;
			END \$\$});
		like($patient->receive, qr/\At\|/, "$end: then who waits leads");
		query("SELECT leader_id, created_at > until - interval '5 ms' FROM leader_lease, kept WHERE id = 3",
			'p|t', 'and not before');
		query("DROP TABLE kept; SELECT le_release(3, 'p')", 't', 'released');
		$patient->quit;
	}
	query("SELECT elected FROM le_campaign(4, 'a', $long)", 't', 'a leader');
	my $lifted = candidate(4, 'l');
	query("SELECT le_release(4, 'a', hold_ms => $long)", 't', 'a long hold');
	ok(!$lifted->done, 'it is waited for');
	query('SELECT le_revoke(4, true)', 't', 'and lifted');
	like($lifted->receive, qr/\At\|/, 'the one who waits leads');

	$other->{run}->kill_kill;
	$_->quit foreach ($leader, $second, $b, $c, $d, $e, $own, $waits, $lifted);
};

subtest 'warning' => sub {
	$primary->safe_psql('postgres',
		"SELECT le_try_acquire(5, 'a', $long), le_renew(5, 'a')");
	my ($rc, $out, $err) = $primary->psql('postgres', 'SELECT le_revoke(5)');
	is("$out$err", 't', 'none as long as others wait');
	($rc, $out, $err) = $primary->psql('postgres', 'SELECT le_revoke(5, true)');
	is($out, 't', 'immediately');
	like($err,
		qr/WARNING:  whoever led lock 5 may believe so for another 6[56]\d{4} ms\nHINT:  Make sure that instance "a" has stopped\./,
		'tells for how long who may believe that it leads');
	$primary->safe_psql('postgres', qq{
		SELECT le_try_acquire(5, 'b', $long);
		SELECT le_release(5, 'b', hold_ms => $long)});
	($rc, $out, $err) = $primary->psql('postgres', 'SELECT le_revoke(5, true)');
	is("$out$err", 't', 'of a hold there is nobody to warn of');
};

# locks in each state
my ($held, $held_short, $revoked, $revoked_short, $now, $now_short, $live, $free) =
  (11 .. 18);

sub prepare
{
	my ($node) = @_;
	$node->psql('postgres', qq{
		SET client_min_messages = error;
		SELECT le_revoke(id, true) FROM leader_lease WHERE id BETWEEN $held AND $free;
		SELECT le_try_acquire(id, 'x', $long) FROM generate_series($held, $free) AS id;
		SELECT le_release(id, 'x') FROM generate_series($held, $free) AS id;
		SELECT le_try_acquire(id, 'a', $long), le_renew(id, 'a')
		  FROM unnest(ARRAY[$held, $held_short, $revoked, $now, $live]) AS id;
		SELECT le_try_acquire(id, 'a', 2 * $grace), le_renew(id, 'a')
		  FROM unnest(ARRAY[$revoked_short, $now_short]) AS id;
		SELECT le_release($held, 'a', hold_ms => $long),
			   le_release($held_short, 'a', hold_ms => 2 * $grace);
		SELECT le_revoke(id) FROM unnest(ARRAY[$revoked, $revoked_short]) AS id;
		SELECT le_revoke(id, true) FROM unnest(ARRAY[$now, $now_short]) AS id;});
	query("SELECT string_agg(state, ' ' ORDER BY id) FROM leader_lease WHERE id BETWEEN $held AND $free",
		'held held revoked revoked revoked revoked live',
		'a lock in each state', $node);
	return;
}

# For how long is a lock not free, in milliseconds after the epoch has begun?
sub kept
{
	my ($node, $lock, $instance) = @_;
	return $node->safe_psql('postgres', qq{
		SELECT round(extract(epoch FROM clock_timestamp() - epoch_start) * 1000) + remaining_ms
		  FROM le_info(), le_campaign($lock, '$instance')});
}

# Not less; and not much more, on however slow a machine.
sub about
{
	my ($is, $expected, $name) = @_;
	ok($is >= $expected - 10 && $is <= $expected + 5000, "$name: $is");
	return;
}

subtest 'restart' => sub {
	prepare($primary);
	$primary->safe_psql('postgres', 'SELECT le_request_resign(17)');
	query("SELECT resign_requested FROM le_campaign($live, 'a')", 't', 'a leader is asked to go');
	my $hold_end = $primary->safe_psql('postgres',
		"SELECT expires_at FROM leader_lease WHERE id = $held");

	$primary->stop('immediate');
	$primary->start;

	query("SELECT string_agg(state, ' ' ORDER BY id) FROM leader_lease WHERE id BETWEEN $held AND $free",
		'held held revoked revoked revoked revoked restarted', 'all are as they were');
	query("SELECT le_try_acquire($held, 'a'), le_try_acquire($held, 'b'), le_try_acquire($revoked, 'a'),
		le_try_acquire($revoked, 'b'), le_renew($revoked, 'a'), le_try_acquire($now, 'a'), le_renew($now, 'a'),
		le_revoke($held), le_revoke($revoked)",
		'f|f|f|f|f|f|f|f|f', 'and keep whom they kept');
	query("SELECT abs(extract(epoch FROM expires_at - '$hold_end')) < 0.1 FROM leader_lease WHERE id = $held",
		't', 'a hold ends when it was meant to');
	about(kept($primary, $revoked, 'b'), $long * 1.1,
		'a revoked lease counts from the restart');
	about(kept($primary, $revoked, 'a'), $long * 1.1 + 60_000,
		'and its ban after that');
	about(kept($primary, $now, 'a'), 60_000, 'so does a ban alone');
	about(kept($primary, $now_short, 'a'), 2 * $grace * 1.1, 'a short one');
	query("SELECT le_try_acquire($now, 'b', $long)", 't', 'which keeps nobody else');

	# a term that has no heartbeat yet in this life
	query("SELECT resign_requested FROM le_campaign($live, 'b')", 'f', 'nobody else was asked');
	query('SELECT le_request_resign(17)', 't', 'asked anew, before it has renewed');
	query("SELECT leads, resign_requested FROM le_keep_alive($live, 'a', le_token($live, 'a'))",
		't|t', 'and told by its heartbeat');
	$primary->restart;
	query("SELECT elected, resign_requested FROM le_campaign($live, 'a')",
		't|f', 'which the next restart forgets');

	ok( $primary->poll_query_until('postgres',
			"SELECT le_try_acquire($held_short, 'a', $long)"),
		'a hold runs out');
	ok( $primary->poll_query_until('postgres',
			"SELECT remaining_ms = 0 FROM le_observe($revoked_short)"),
		'a revoked lease runs out');
	query("SELECT le_try_acquire($revoked_short, 'a', $long), le_try_acquire($revoked_short, 'b', $long)",
		'f|t', 'for others');
};

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

subtest 'standby' => sub {
	foreach my $call ("le_transfer($live, 'a', 1, 'b')", "le_request_resign($live)",
		"le_revoke($live)", "le_revoke($live, true)", "le_release($live, 'a', hold_ms => 1)")
	{
		my ($rc, $out, $err) = $standby->psql('postgres', "SELECT $call",
			extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
		like($err, qr/25006/, "no $call");
	}
};

subtest 'promotion' => sub {
	prepare($primary);
	my $token = $primary->safe_psql('postgres', "SELECT le_token($live, 'a')");
	my $given_up = 19;
	query("SELECT le_try_acquire($given_up, 'a', $long)", 't', 'a term ...');
	query("SELECT le_release($given_up, 'a', hold_ms => $long)", 't', '... is given up with a hold');
	$primary->wait_for_catchup($standby);
	$primary->stop('immediate');
	$standby->promote;

	# one statement: it is the first call and so begins the epoch
	query("SELECT (SELECT bool_or(le_try_acquire(id, 'b', $long) OR le_try_acquire(id, 'a')
								  OR le_renew(id, 'a') OR le_revoke(id) OR le_request_resign(id))
				   FROM generate_series($held, $free) AS id),
				  (SELECT string_agg(DISTINCT state, ' ') FROM leader_lease WHERE id BETWEEN $held AND $live)",
		'f|grace', 'nobody leads, whatever the row', $standby);

	# an operator vouches for one lock
	my ($rc, $out, $err) = $standby->psql('postgres', "SELECT le_revoke($live, true)");
	is($out, 't', 'a lease that came through is revoked at once');
	like($err, qr/WARNING:  whoever led lock $live may believe so for another/, 'with what it risks');
	like($err, qr/HINT:  .*before the promotion.*another one than instance "a"/, 'and from whom');
	($rc, $out, $err) = $standby->psql('postgres', "SELECT le_revoke($given_up, true)");
	is($out, 't', 'so is a hold');
	like($err, qr/WARNING:  whoever led lock $given_up may .*before the promotion/s,
		'which the old primary may have lifted, and others have led since');
	query("SELECT le_try_acquire($live, 'a'), le_try_acquire($live, 'b', $long), le_renew($live, 'b'),
				  le_renew($live, 'a', $token)",
		'f|t|t|f', 'others may lead it within the grace, but not itself', $standby);
	query("SELECT le_token($live, 'b') > $token", 't', 'in a later term', $standby);
	query("SELECT le_revoke($now, true), le_try_acquire($now, 'a'), le_try_acquire($now, 'b', $long)",
		't|f|t', 'so it is with a lock whose leader was revoked before', $standby);
	query("SELECT le_revoke($free, true)", 'f', 'a lock without a row has nothing to vouch for', $standby);
	query("SELECT bool_or(le_try_acquire(id, 'b', $long)) FROM unnest(ARRAY[$held, $held_short, $revoked, $revoked_short, $now_short, $free]) AS id",
		'f', 'and all other locks wait', $standby);
	query("SELECT le_transfer($live, 'b', le_token($live, 'b'), 'c'), le_try_acquire($free, 'b')",
		't|f', 'also when that term is handed on', $standby);
	query("SELECT le_release($now, 'b')", 't', 'a release', $standby);
	query("SELECT le_sweep(0), le_try_acquire($now, 'b', $long), le_try_acquire($free, 'b')",
		'0|t|f', 'leaves that lock vacant, whatever is swept, and the others not', $standby);
	query("SELECT grace_remaining_ms > 0 FROM le_info()", 't', 'for the grace', $standby);
	query("SELECT le_release($live, 'c', hold_ms => $short), le_try_acquire($live, 'b')",
		't|f', 'or ended', $standby);

	ok( $standby->poll_query_until('postgres',
			"SELECT le_try_acquire($free, 'b', $long)"),
		'the grace is over');
	is( $standby->safe_psql('postgres', qq{
			SELECT extract(epoch FROM created_at - epoch_start) * 1000 >= $grace * 1.1 * 0.999
			  FROM leader_lease, le_info() WHERE id = $free}),
		't', 'and was not cut short');
	query("SELECT le_try_acquire($now_short, 'a'), le_try_acquire($now_short, 'b', $long)",
		'f|t', 'a ban lasts longer, for the one that it is for', $standby);
	query("SELECT le_try_acquire($held, 'a'), le_try_acquire($held, 'b'), le_try_acquire($revoked, 'b')",
		'f|f|f', 'so do holds and revoked leases', $standby);
	is(state_of($held, $standby), 'held', 'which is what they are now');
	is(state_of($revoked, $standby), 'revoked', 'both');
	about(kept($standby, $revoked, 'b'), $long * 1.1, 'the lease counts from the promotion');
	cmp_ok(kept($standby, $held, 'b'), '<=', $long, 'the hold does not');
	ok( $standby->poll_query_until('postgres',
			"SELECT le_try_acquire($held_short, 'b', $long)"),
		'a short hold runs out');
	ok( $standby->poll_query_until('postgres',
			"SELECT le_try_acquire($revoked_short, 'b', $long)"),
		'and a short lease');
	is( $standby->safe_psql('postgres', qq{
			SELECT extract(epoch FROM created_at - epoch_start) * 1000 >= 2 * $grace * 1.1 * 0.999
			  FROM leader_lease, le_info() WHERE id = $revoked_short}),
		't', 'not before its whole length after the promotion');
};
$standby->stop;

done_testing();
