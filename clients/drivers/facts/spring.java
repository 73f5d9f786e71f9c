// What docs/drivers.md says of Spring.
import java.sql.Connection;
import java.sql.SQLException;

import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.jdbc.datasource.DataSourceTransactionManager;
import org.springframework.jdbc.datasource.DriverManagerDataSource;
import org.springframework.transaction.TransactionDefinition;
import org.springframework.transaction.interceptor.DefaultTransactionAttribute;
import org.springframework.transaction.support.TransactionTemplate;

public class spring {
	static void fact(String what, Object wanted, Object got) {
		System.out.println(wanted.equals(got) ? "ok " + what : "not ok " + what + ": wanted " + wanted + ", got " + got);
	}

	static String error(Runnable work) {
		try {
			work.run();
			return "none";
		} catch (RuntimeException e) {
			Throwable cause = e;
			while (!(cause instanceof SQLException))
				cause = cause.getCause();
			return e.getClass().getSimpleName() + " " + ((SQLException) cause).getSQLState();
		}
	}

	public static void main(String[] args) throws Exception {
		var source = new DriverManagerDataSource(System.getenv("DATABASE_URL"));
		var jdbc = new JdbcTemplate(source);
		var manager = new DataSourceTransactionManager(source);
		var transactions = new TransactionTemplate(manager);
		var nested = new TransactionTemplate(manager);
		nested.setPropagationBehavior(TransactionDefinition.PROPAGATION_NESTED);

		fact("LE001 at a statement", "UncategorizedSQLException LE001", error(() ->
			jdbc.queryForList("SELECT le_guard(9, 'x')")));
		fact("in a transaction", "25001", error(() ->
			transactions.execute(status -> jdbc.queryForList("SELECT le_try_acquire(9, 'x')"))).split(" ")[1]);
		jdbc.queryForList("SELECT le_try_acquire(9, 'x')");
		fact("LE001 at COMMIT, of a guard in a savepoint that was undone", "TransactionSystemException LE001", error(() ->
			transactions.execute(status -> {
				nested.execute(inner -> {
					jdbc.queryForList("SELECT le_guard(9, 'x')");
					inner.setRollbackOnly();
					return null;
				});
				jdbc.execute("INSERT INTO plain VALUES (-1)");
				new JdbcTemplate(new DriverManagerDataSource(System.getenv("DATABASE_URL")))
					.queryForList("SELECT le_release(9, 'x')");
				return null;
			})));
		fact("a checked exception does not roll back", false, new DefaultTransactionAttribute().rollbackOn(new Exception()));
		fact("an Error does", true, new DefaultTransactionAttribute().rollbackOn(new AssertionError()));
		fact("no server", "CannotGetJdbcConnectionException 08001", error(() -> new JdbcTemplate(
			new DriverManagerDataSource("jdbc:postgresql://localhost:1/d?user=app")).queryForList("SELECT 1")));
	}
}
