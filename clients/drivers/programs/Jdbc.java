@@ java-imports
@@ jdbc-imports

public class Jdbc {
@@ java
@@ jdbc

	static Connection db2;

	static void runGuarded(long token, Work work) throws Exception {
		guarded(db2, token, work::run);
	}

	static void execute(Object db, String sql) throws Exception {
		try (var statement = ((Connection) db).createStatement()) {
			statement.execute(sql);
		}
	}

	static void prepare() throws Exception {
		db2 = DriverManager.getConnection(URL);
	}

@@ file main.java
}
