@@ java-imports
@@ spring-imports

public class Spring {
@@ java
@@ spring
@@ spring-work

	static void runGuarded(long token, Work work) throws Exception {
		guarded(transactions, jdbc, token, () -> {
			try {
				work.run(jdbc);
			} catch (RuntimeException error) {
				throw error;
			} catch (Exception error) {
				throw new RuntimeException(error);
			}
		});
	}

	static void execute(Object db, String sql) {
		((JdbcTemplate) db).execute(sql);
	}

	static void prepare() {}

@@ file main.java
}
