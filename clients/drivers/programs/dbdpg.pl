@@ dbd-pg

my $db2;

sub run_guarded
{
	my @args = @_;
	return if eval { guarded($db2 //= connection(), @args); 1 };
	my $error = $@;
	undef $db2;
	die $error;
}

sub execute { $_[0]->do($_[1]) }

@@ file main.pl
