// What docs/drivers.md says of lib/pq.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
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
	var e *pq.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	return fmt.Sprint(err)
}

var silent int32 // nothing more is read from the server

type dialer struct{}

func (dialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return deaf{c}, err
}

func (d dialer) DialTimeout(network, address string, _ time.Duration) (net.Conn, error) {
	return d.Dial(network, address)
}

type deaf struct{ net.Conn }

func (c deaf) Read(b []byte) (int, error) {
	if atomic.LoadInt32(&silent) != 0 {
		select {}
	}
	return c.Conn.Read(b)
}

func main() {
	db, err := sql.Open("postgres", "sslmode=disable")
	must(err)
	var null *int64
	must(db.QueryRow("SELECT token FROM le_campaign(9, 'x')").Scan(&null))
	fact("a token", true, null != nil)
	must(db.QueryRow("SELECT token FROM le_campaign(9, 'y')").Scan(&null))
	fact("none is a nil pointer", true, null == nil)
	tx, err := db.Begin()
	must(err)
	_, err = tx.Exec("SELECT le_guard(9, 'x')")
	must(err)
	_, err = tx.Exec("INSERT INTO ledger VALUES (-1)")
	must(err)
	_, err = db.Exec("SELECT le_release(9, 'x')")
	must(err)
	fact("LE001 at Commit", "LE001", state(tx.Commit()))

	for _, option := range []string{"target_session_attrs=read-write", "host=localhost,127.0.0.1"} {
		other, err := sql.Open("postgres", "sslmode=disable "+option)
		must(err)
		fact("refused: "+option, true, other.Ping() != nil)
	}

	c, err := pq.NewConnector("sslmode=disable")
	must(err)
	c.Dialer(dialer{})
	db = sql.OpenDB(c)
	must(db.Ping())
	atomic.StoreInt32(&silent, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	ended := make(chan error)
	go func() {
		_, err := db.ExecContext(ctx, "SELECT 1")
		ended <- err
	}()
	select {
	case err := <-ended:
		fact("a context is no limit", "no answer", err)
	case <-time.After(2 * time.Second):
		fact("a context is no limit", "no answer", "no answer")
	}
}
