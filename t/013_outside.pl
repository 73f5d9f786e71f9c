# Resources that cannot look at the lease compare tokens: the two patterns of
# docs/fencing.md.  A deposed leader comes back to each and is refused.

use strict;
use warnings;

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

# two terms, of which the first is over
my ($old, $new) = map {
	$node->safe_psql('postgres', "SELECT le_try_acquire(1, '$_', 600000)");
	my $token = $node->safe_psql('postgres', "SELECT le_token(1, '$_')");
	$node->safe_psql('postgres', "SELECT le_release(1, '$_')");
	$token;
} ('a', 'b');

subtest 'a table in another database' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE other');
	$node->safe_psql('other', q{
		CREATE TABLE fence (resource text PRIMARY KEY, token bigint NOT NULL);
		INSERT INTO fence VALUES ('payments', 0)});
	my $enter = sub {
		my ($token) = @_;
		return $node->safe_psql('other', "
			UPDATE fence SET token = $token
			 WHERE resource = 'payments' AND token <= $token
			RETURNING 'enters'");
	};
	is($enter->($old), 'enters', 'the first leader');
	is($enter->($old), 'enters', 'as often as it wants');
	is($enter->($new), 'enters', 'its successor');
	is($enter->($old), '', 'the first one is deposed');
	is($enter->($new), 'enters', 'and its successor has not noticed');
};

subtest 'a file' => sub {
	my $program = "$FindBin::RealBin/../examples/fenced-file";
	my $file = PostgreSQL::Test::Utils::tempdir() . '/file';
	my $append = sub {
		my ($token, $line) = @_;
		my $error;
		IPC::Run::run([ $program, $token, $file ], '<', \"$line\n", '2>', \$error);
		return ($? >> 8) . $error;
	};
	is($append->($old, 'one'), '0', 'the first leader');
	is($append->($old, 'two'), '0', 'as often as it wants');
	is($append->($new, 'three'), '0', 'its successor');
	is($append->($old, 'four'),
		"1token $old is older than $new, which has written to $file\n",
		'the first one is deposed');
	is($append->($new, 'five'), '0', 'and its successor has not noticed');
	is(slurp_file($file), "one\ntwo\nthree\nfive\n", 'what was written');
};

done_testing();
