# The end of each program in Perl: run_guarded(), execute() and sqlstate() are above.
use IO::Select;
$| = 1;

my $no = (ask("SELECT le_is_leader(1, 'nobody')"))[0] ? 'yes' : 'no';
my $input = '';

# a line of the input, without Perl's buffer, so that select() sees all of it
sub line
{
	my $end;
	while (($end = index $input, "\n") < 0)
	{
		sysread(STDIN, $input, 4096, length $input) or exit 1;
	}
	my $line = substr $input, 0, $end + 1, '';
	chomp $line;
	return $line;
}

sub answer
{
	my ($command, $sql) = @_;
	return $me if $command eq 'me';
	return defined leads() ? leads() : 'none' if $command eq 'token';
	return $no if $command eq 'false';
	my $done = eval {
		run_guarded(leads(), sub {
			my $handle = shift;
			execute($handle, $sql);
			if ($command eq 'open')
			{
				print "open\n";
				line();
			}
		});
		1;
	};
	return 'done' if $done;
	print STDERR $@->{message};
	return 'error ' . sqlstate($@);
}

my $next = 0;
while (1)
{
	if (clock() >= $next)
	{
		$next = clock() + turn();
	}
	my $pause = $next - clock();
	if ($input =~ /\n/ || IO::Select->new(\*STDIN)->can_read($pause > 0 ? $pause : 0))
	{
		my ($command, $sql) = split / /, line(), 2;
		last if $command eq 'stop';
		print answer($command, $sql) . "\n";
	}
}
step_down();
