@@ java-imports
@@ jdbc-imports

public class Jdbc {
@@ java
@@ jdbc

	static Connection db2;

	static void runGuarded(long token, Work work) throws Exception {
		if (db2 == null)
			db2 = DriverManager.getConnection(URL);
		try {
			guarded(db2, token, work::run);
		} catch (Exception e) {
			db2.close();
			db2 = null;
			throw e;
		}
	}

	static void execute(Object db, String sql) throws Exception {
		try (var statement = ((Connection) db).createStatement()) {
			statement.execute(sql);
		}
	}

	static void prepare() {
	}

@@ file main.java
}
