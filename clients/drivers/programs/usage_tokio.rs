@@ tokio-postgres
@@ tokio-postgres-main
