@@ tokio-postgres

use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() {
    let config = format!(
        "host={} port={} user={} dbname={}",
        std::env::var("PGHOST").unwrap(),
        std::env::var("PGPORT").unwrap(),
        std::env::var("PGUSER").unwrap(),
        std::env::var("PGDATABASE").unwrap()
    );
    let mut election = Election::new(&config);
    // before the election begins, whose connection it is
    let rows = election.ask("SELECT le_is_leader(1, $1), le_instance('app')", &[&"nobody"]).await.unwrap();
    let no = if rows.get::<_, bool>(0) { "yes" } else { "no" };
    let me: String = rows.get(1);
    let term = Arc::new(Mutex::new(Term::default()));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let task = tokio::spawn(elect(election, me.clone(), term.clone(), stopped));
    let mut db2 = connect(&config).await.unwrap();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        let (command, sql) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "stop" => break,
            "me" => println!("{}", me),
            "false" => println!("{}", no),
            "token" => match leads(&term) {
                Some(token) => println!("{}", token),
                None => println!("none"),
            },
            _ => {
                let token = leads(&term).unwrap_or(1);
                if db2.is_closed() {
                    match connect(&config).await {
                        Ok(client) => db2 = client,
                        Err(error) => {
                            eprintln!("{:?}", error);
                            println!("error {}", sqlstate(&error));
                            continue;
                        }
                    }
                }
                let result = if command == "open" {
                    match guard(&mut db2, &me, token).await {
                        Err(error) => Err(error),
                        Ok(transaction) => {
                            transaction.batch_execute(sql).await.unwrap();
                            println!("open");
                            lines.next_line().await.unwrap();
                            transaction.commit().await
                        }
                    }
                } else {
                    match guard(&mut db2, &me, token).await {
                        Err(error) => Err(error),
                        Ok(transaction) => match transaction.batch_execute(sql).await {
                            Err(error) => Err(error),
                            Ok(()) => transaction.commit().await,
                        },
                    }
                };
                match result {
                    Ok(()) => println!("done"),
                    Err(error) => {
                        eprintln!("{:?}", error);
                        println!("error {}", sqlstate(&error));
                    }
                }
            }
        }
    }
    stop.send(true).unwrap();
    task.await.unwrap();
    std::process::exit(0);
}
