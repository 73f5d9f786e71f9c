<?php
@@ pdo

$db2 = null;
$no = ask("SELECT le_is_leader(1, 'nobody')")[0] ? 'yes' : 'no';
stream_set_blocking(STDIN, true);

function answer($command, $sql) {
	global $db2, $me, $no;
	if ($command == 'me')
		return $me;
	if ($command == 'token')
		return leads() ?? 'none';
	if ($command == 'false')
		return $no;
	try {
		$db2 ??= connection();
		guarded($db2, leads(), function ($db) use ($command, $sql) {
			$db->exec($sql);
			if ($command == 'open') {
				echo "open\n";
				fgets(STDIN);
			}
		});
		return 'done';
	} catch (PDOException $error) {
		$db2 = null;
		fwrite(STDERR, $error);
		return 'error ' . sqlstate($error);
	}
}

// one command comes after the answer to the one before, so PHP's buffer has no second line
for ($next = 0;;) {
	if (clock() >= $next)
		$next = clock() + turn();
	$pause = max(0, $next - clock());
	$ready = [STDIN];
	$none = null;
	if (stream_select($ready, $none, $none, (int) $pause, (int) (fmod($pause, 1) * 1000000))) {
		$line = fgets(STDIN);
		if ($line === false)
			exit(1);
		[$command, $sql] = explode(' ', rtrim($line), 2) + ['', ''];
		if ($command == 'stop')
			break;
		echo answer($command, $sql), "\n";
	}
}
step_down();
