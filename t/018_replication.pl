# A publication FOR ALL TABLES includes le_lease, and where both ends have the
# extension the publisher's terms arrive at the subscriber's table.  They must
# never get into it: leaders would vanish and double there.  And the
# subscription must go on, also one that is behind.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = 600_000;    # outlives the test

my $publisher = PostgreSQL::Test::Cluster->new('publisher');
$publisher->init(allows_streaming => 'logical');
$publisher->start;
my $subscriber = PostgreSQL::Test::Cluster->new('subscriber');
$subscriber->init(allows_streaming => 'logical');
$subscriber->start;

$_->safe_psql('postgres', q{
	CREATE EXTENSION leader_election;
	CREATE TABLE work (id int PRIMARY KEY);}) foreach ($publisher, $subscriber);
is( $publisher->safe_psql('postgres', qq{
		SELECT le_try_acquire(1, 'publisher', $long);
		SELECT le_try_acquire(2, 'publisher', $long);
		SELECT le_try_acquire(3, 'publisher', 100);
		CREATE PUBLICATION everything FOR ALL TABLES;}),
	"t\nt\nt",
	'leaders on the publisher');
is( $subscriber->safe_psql('postgres', qq{
		SELECT le_try_acquire(1, 'subscriber', $long);
		SELECT le_try_acquire(3, 'subscriber', $long);
		SELECT le_renew(3, 'subscriber');}),
	"t\nt\nt",
	'and on the subscriber');

# Who leads on the subscriber?
sub subscriber_has
{
	my ($expected, $name) = @_;
	is( $subscriber->safe_psql('postgres', q{
			SELECT string_agg(lock_id || leader_id, ' ' ORDER BY lock_id) FROM le_lease;
			SELECT le_renew(1, 'subscriber'), le_leader(1), le_renew(3, 'subscriber'), le_leader(3)}),
		"$expected\nt|subscriber|t|subscriber",
		$name);
	return;
}

my $connstr = $publisher->connstr('postgres');
$subscriber->safe_psql('postgres',
	"CREATE SUBSCRIPTION everything CONNECTION \$\$$connstr\$\$ PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 'everything');
subscriber_has('1subscriber 3subscriber', 'the first copy brings nobody');

# every kind of change: insert, update by a take-over, delete
ok( $publisher->poll_query_until('postgres',
		"SELECT le_try_acquire(3, 'next', $long)"),
	'a take-over on the publisher');
is( $publisher->safe_psql('postgres', qq{
		SELECT le_try_acquire(4, 'publisher', $long);
		SELECT le_release(1, 'publisher');
		SELECT le_release(2, 'publisher');
		INSERT INTO work VALUES (1);}),
	"t\nt\nt",
	'a begin and two releases');
$publisher->wait_for_catchup('everything');
subscriber_has('1subscriber 3subscriber', 'nothing arrives');
is($subscriber->safe_psql('postgres', 'SELECT count(*) FROM work'),
	'1', 'but for the user\'s rows');

is( $subscriber->safe_psql('postgres', qq{
		SELECT le_release(1, 'subscriber');
		SELECT le_try_acquire(1, 'subscriber', $long);
		SELECT le_try_acquire(4, 'subscriber', $long);}),
	"t\nt\nt",
	'elections on the subscriber');
$publisher->safe_psql('postgres', qq{
	SELECT le_release(4, 'publisher');
	SELECT le_try_acquire(5, 'publisher', $long);
	INSERT INTO work VALUES (2);});
$publisher->wait_for_catchup('everything');
subscriber_has('1subscriber 3subscriber 4subscriber', 'both go on');
is( $subscriber->safe_psql('postgres', q{
		SELECT count(*) FROM work;
		SELECT warnings::text ~ 'trigger' FROM le_info();}),
	"2\nf",
	'and the subscription does');

$subscriber->stop;
$publisher->stop;
done_testing();
