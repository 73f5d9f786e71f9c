@@ dbd-pg

my $db2 = DBI->connect('dbi:Pg:', undef, undef, { RaiseError => 1, PrintError => 0 });

sub run_guarded { guarded($db2, @_) }

sub execute { $_[0]->do($_[1]) }

@@ file main.pl
