// What docs/drivers.md says of JDBC.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;

import javax.transaction.xa.XAException;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;

import org.postgresql.xa.PGXADataSource;

public class jdbc {
	static void fact(String what, Object wanted, Object got) {
		System.out.println(wanted.equals(got) ? "ok " + what : "not ok " + what + ": wanted " + wanted + ", got " + got);
	}

	static String state(Connection db, String... statements) throws SQLException {
		try (var statement = db.createStatement()) {
			for (String sql : statements)
				statement.execute(sql);
			return "none";
		} catch (SQLException e) {
			return e.getSQLState();
		}
	}

	record Name(int getFormatId, byte[] getGlobalTransactionId, byte[] getBranchQualifier) implements Xid {}

	public static void main(String[] args) throws Exception {
		String url = System.getenv("DATABASE_URL");
		try (var db = DriverManager.getConnection(url)) {
			fact("autocommit by default", "none", state(db, "SELECT le_try_acquire(9, 'x')"));
			db.setAutoCommit(false);
			fact("a block without it", "25001", state(db, "SELECT le_try_acquire(8, 'x')"));
		}
		try (var db = DriverManager.getConnection(url + "&autosave=always")) {
			db.setAutoCommit(false);
			fact("a guard that fails", "LE001", state(db, "SELECT le_guard(8, 'x')"));
			fact("autosave goes on", "none", state(db, "CREATE TEMP TABLE t (n int)"));
			try {
				db.commit();
				fact("and COMMIT is refused", "LE001", "committed");
			} catch (SQLException e) {
				fact("and COMMIT is refused", "LE001", e.getSQLState());
			}
		}
		try (var db = DriverManager.getConnection(url)) {
			db.setAutoCommit(false);
			state(db, "INSERT INTO plain VALUES (-1)");
			db.setAutoCommit(true);
		}
		try (var db = DriverManager.getConnection(url);
				var rows = db.createStatement().executeQuery("SELECT count(*) FROM plain WHERE n < 0")) {
			rows.next();
			fact("setAutoCommit(true) commits", 1L, rows.getLong(1));
		}
		var source = new PGXADataSource();
		source.setUrl(url);
		var pooled = source.getXAConnection();
		var xid = new Name(1, new byte[] {1}, new byte[] {1});
		var resource = pooled.getXAResource();
		resource.start(xid, XAResource.TMNOFLAGS);
		fact("a guard in an XA transaction", "none", state(pooled.getConnection(), "SELECT le_guard(9, 'x')"));
		resource.end(xid, XAResource.TMSUCCESS);
		try {
			resource.prepare(xid);
			fact("cannot be prepared", "0A000", "prepared");
		} catch (XAException e) {
			fact("cannot be prepared", "0A000", ((SQLException) e.getCause()).getSQLState());
		}
	}
}
