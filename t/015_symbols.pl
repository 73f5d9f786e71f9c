# What the library gives to other modules, and takes from them.  The server loads
# modules with RTLD_GLOBAL: a function of ours that is called through the
# dynamic linker is whichever was loaded first under that name, and with a
# stranger's clock two instances lead.

use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

# The symbols that files define for others: name => kind, as nm tells it.
sub symbols
{
	my @command = ('nm', '--defined-only', @_);
	my ($out, $err) = run_command(\@command);
	is($err, '', join(' ', @command[0 .. $#command - 1]) . ' ...');
	return { map { /^[0-9a-f]+ (\w) (\S+)$/ ? ($2 => $1) : () }
		  split(/\n/, $out) };
}

my $library = $node->config_data('--pkglibdir') . '/leader_election.so';
my @functions = split(/\n/, $node->safe_psql('postgres', q{
	SELECT prosrc FROM pg_depend JOIN pg_proc p ON p.oid = objid
	 WHERE classid = 'pg_proc'::regclass AND deptype = 'e'
	   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')
	   AND prolang = (SELECT oid FROM pg_language WHERE lanname = 'c')}));

# the install script creates it and drops it again
push @functions, 'le_first_lineage';

is_deeply(
	[ sort keys %{ symbols('-D', $library) } ],
	[ sort(qw(Pg_magic_func _PG_init le_sweeper_main), @functions, map { "pg_finfo_$_" } @functions) ],
	'the library gives what the server looks up, and nothing else');

# hidden or not, in the same process or in a core file nobody mistakes them
my %ours =
  map { %{ symbols('--extern-only', $_) } } glob("$FindBin::RealBin/../src/*.o");
cmp_ok(scalar(keys %ours), '>', 50, 'the object files have symbols');
is_deeply(
	[ grep { !/^(pg_finfo_)?le_|^(Pg_magic_func|_PG_init)$/ } sort keys %ours ],
	[], 'and all have our prefix');

# A module that has all these names, with the prefix and without.
my $dir = $PostgreSQL::Test::Utils::tmp_check;
append_to_file("$dir/magic.c", <<'C');
#include "postgres.h"
#include "fmgr.h"
PG_MODULE_MAGIC;
extern void stranger(const char *name);
void
stranger(const char *name)
{
	elog(ERROR, "a stranger's %s ran", name);
}
C
my %stranger;
foreach my $name (grep { /^le_/ } keys %ours)
{
	$stranger{$name} = $stranger{ substr($name, 3) } = $ours{$name};
}
append_to_file("$dir/stranger.c",
	join("\n", 'extern void stranger(const char *name);',
		map { $stranger{$_} eq 'T'
			  ? "int $_(void) { stranger(\"$_\"); return 0; }"
			  : "long $_\[16\];" } sort keys %stranger));
command_ok(
	[
		'gcc', '-shared', '-fPIC', '-fno-builtin', '-o', "$dir/stranger.so",
		'-I', $node->config_data('--includedir-server'),
		"$dir/magic.c", "$dir/stranger.c"
	],
	'another module');
is( symbols('-D', "$dir/stranger.so")->{$_}, 'T', "which exports $_")
  foreach ('le_clock_now', 'clock_now', 'le_rule_live', 'le_lease_renew');

my $answers = q{
	SELECT le_try_acquire(1, 'a', 600000), le_try_acquire(1, 'b', 600000);
	SELECT le_renew(1, 'a'), le_renew(1, 'b'), le_is_leader(1, 'a'), le_leader(1);
	SELECT le_token(1, 'a') > 0, le_guard(1, 'a') > 0;
	SELECT id, leader_id, state, renewals FROM leader_lease;
	SELECT le_sweep(0), entries, version FROM le_info();
	SELECT le_release(1, 'a'), le_try_acquire(1, 'b', 600000), le_release(1, 'b');};
my $expected = "t|f\nt|f|t|a\nt|t\n1|a|live|1\n0|1|1.0\nt|t|t";
is($node->safe_psql('postgres', $answers), $expected, 'our answers');
is( $node->safe_psql('postgres', "LOAD '$dir/stranger.so';$answers"),
	$expected, 'are the same next to it');

$node->stop;
done_testing();
