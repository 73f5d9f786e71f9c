# What docs/drivers.md says of DBD::Pg.
use strict;
use warnings;
use DBI;

sub fact
{
	my ($what, $wanted, $got) = @_;
	print $wanted eq $got ? "ok $what\n" : "not ok $what: wanted $wanted, got $got\n";
}

my $db = DBI->connect('dbi:Pg:', undef, undef, { RaiseError => 1, PrintError => 0 });
my ($false) = $db->selectrow_array("SELECT le_is_leader(9, 'x')");
fact('false is false', 'no', $false ? 'yes' : 'no');
$db->{pg_bool_tf} = 1;
($false) = $db->selectrow_array("SELECT le_is_leader(9, 'x')");
fact('with pg_bool_tf it is true', 'yes', $false ? 'yes' : 'no');
$db = DBI->connect('dbi:Pg:', undef, undef, { AutoCommit => 0, RaiseError => 1, PrintError => 0 });
eval { $db->do("SELECT le_try_acquire(9, 'x')") };
fact('without AutoCommit it is a block', '25001', $db->state);
$db->rollback;
fact('rollback forgets the state', '', $db->state);
