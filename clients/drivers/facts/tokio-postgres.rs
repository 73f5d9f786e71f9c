// What docs/drivers.md says of tokio-postgres.
use std::time::Duration;
use tokio_postgres::NoTls;

fn fact(what: &str, is: bool) {
    println!("{} {}", if is { "ok" } else { "not ok" }, what);
}

#[tokio::main]
async fn main() {
    let config = ["host", "port", "user", "database"].map(|key| {
        let name = format!("PG{}", key.to_uppercase());
        format!("{}={}", key.replace("database", "dbname"), std::env::var(name).unwrap())
    });
    let config = config.join(" ");
    let (idle, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(500), idle.query_one("SELECT 1", &[])).await;
    fact("without its connection a client does nothing", answer.is_err());
    drop(connection);

    let (mut db, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    let (other, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = other.query_one("SELECT elected, token FROM le_campaign(9, 'x')", &[]).await.unwrap();
    fact("a boolean and a token", row.get::<_, bool>(0) && row.get::<_, i64>(1) > 0);
    let row = other.query_one("SELECT elected, token FROM le_campaign(9, 'y')", &[]).await.unwrap();
    fact("no token is a NULL", row.get::<_, Option<i64>>(1).is_none());
    fact("which get refuses", row.try_get::<_, i64>(1).is_err());

    let transaction = db.transaction().await.unwrap();
    transaction.batch_execute("INSERT INTO plain VALUES (-1)").await.unwrap();
    drop(transaction);
    let row = db.query_one("SELECT count(*) FROM plain WHERE n < 0", &[]).await.unwrap();
    fact("a transaction that is dropped is rolled back", row.get::<_, i64>(0) == 0);

    let transaction = db.transaction().await.unwrap();
    transaction.batch_execute("SELECT le_guard(9, 'x'); INSERT INTO plain VALUES (-1)").await.unwrap();
    other.batch_execute("SELECT le_release(9, 'x')").await.unwrap();
    let error = transaction.commit().await.unwrap_err();
    fact("LE001 from commit()", error.code().map(|code| code.code()) == Some("LE001"));
}
