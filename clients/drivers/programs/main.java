	// The end of each program in Java: runGuarded(), execute() and sqlstate() are above.
	interface Work { void run(Object handle) throws Exception; }

	static String answer(String command, String sql, java.io.BufferedReader input, boolean no) throws Exception {
		switch (command) {
			case "me": return ME;
			case "token": return leads() == null ? "none" : leads().toString();
			case "false": return no ? "yes" : "no";
		}
		try {
			Long token = leads();
			runGuarded(token == null ? 1 : token, handle -> {
				execute(handle, sql);
				if (command.equals("open")) {
					System.out.println("open");
					input.readLine();
				}
			});
			return "done";
		} catch (Exception error) {
			error.printStackTrace();
			return "error " + sqlstate(error);
		}
	}

	public static void main(String[] args) throws Exception {
		prepare();
		// before the election begins, whose connection it is
		boolean no = (Boolean) ask("SELECT le_is_leader(1, ?)", "nobody")[0];
		var election = new Thread(() -> elect());
		election.setDaemon(true);          // it ends with whoever started it
		election.start();
		var input = new java.io.BufferedReader(new java.io.InputStreamReader(System.in));
		for (String line; !(line = input.readLine()).equals("stop");) {
			var words = line.split(" ", 2);
			System.out.println(answer(words[0], words.length > 1 ? words[1] : "", input, no));
		}
		running = false;
		election.join();
		System.exit(0);
	}
