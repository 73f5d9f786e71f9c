// What docs/drivers.md says of pgx.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

func fact(what string, wanted, got interface{}) {
	if wanted == got {
		fmt.Println("ok", what)
	} else {
		fmt.Printf("not ok %s: wanted %v, got %v\n", what, wanted, got)
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func state(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return fmt.Sprint(err)
}

func main() {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, "")
	must(err)
	other, err := pgx.Connect(ctx, "target_session_attrs=read-write")
	must(err)
	_, err = db.Exec(ctx, "SELECT le_try_acquire(9, 'x')")
	must(err)
	tx, err := db.Begin(ctx)
	must(err)
	inner, err := tx.Begin(ctx)
	must(err)
	_, err = inner.Exec(ctx, "SELECT le_guard(9, 'x')")
	must(err)
	must(inner.Rollback(ctx))
	_, err = tx.Exec(ctx, "INSERT INTO plain VALUES (-1)")
	must(err)
	_, err = other.Exec(ctx, "SELECT le_release(9, 'x')")
	must(err)
	fact("LE001 at Commit, of a guard in a savepoint that was undone", "LE001", state(tx.Commit(ctx)))

	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = db.Exec(short, "SELECT pg_sleep(10)")
	fact("a context ends a call", true, err != nil && time.Since(begin) < 5*time.Second)
	fact("and the connection", true, db.IsClosed())
}
