// What docs/drivers.md says of lib/pq.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"sync"
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

// Contend for four locks through a pool of two; how often one was answered for another's.
func answersForOthers(dsn string) int32 {
	var wrong int32
	var all sync.WaitGroup
	for lock := 11; lock <= 14; lock++ {
		all.Add(1)
		go func(lock int) {
			defer all.Done()
			db, err := sql.Open("postgres", dsn)
			if err != nil {
				panic(err)
			}
			defer db.Close()
			db.SetMaxOpenConns(1)
			query := fmt.Sprintf("SELECT %d, elected FROM le_campaign(%d, $1)", lock, lock)
			for n := 0; n < 1000; n++ {
				var asked int
				var elected bool
				if err := db.QueryRow(query, fmt.Sprint("of ", lock)).Scan(&asked, &elected); err != nil {
					fact("through PgBouncer", nil, err) // and no panic, which would leave it running
					return
				}
				if asked != lock {
					atomic.AddInt32(&wrong, 1)
				}
			}
		}(lock)
	}
	all.Wait()
	return wrong
}

func throughPgBouncer() {
	folder, err := os.Getwd()
	must(err)
	must(os.WriteFile("pool.users", []byte("\"app\" \"\"\n"), 0o600))
	must(os.WriteFile("pool.ini", []byte(fmt.Sprintf("[databases]\n* = host=%s port=%s\n[pgbouncer]\nunix_socket_dir = %s\n"+
		"listen_port = 6420\nauth_type = trust\nauth_file = pool.users\npool_mode = transaction\ndefault_pool_size = 2\n"+
		"ignore_startup_parameters = extra_float_digits\n", os.Getenv("PGHOST"), os.Getenv("PGPORT"), folder)), 0o600))
	pool := exec.Command("/usr/sbin/pgbouncer", "-q", "pool.ini")
	must(pool.Start())
	defer pool.Wait()
	defer pool.Process.Kill()
	dsn := fmt.Sprintf("sslmode=disable host=%s port=6420", folder)
	db, err := sql.Open("postgres", dsn+" binary_parameters=yes")
	must(err)
	for end := time.Now().Add(20 * time.Second); db.Ping() != nil && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	db.Close()
	fact("with binary_parameters no answer is another's", int32(0), answersForOthers(dsn+" binary_parameters=yes"))
	fact("and without it some are", true, answersForOthers(dsn) > 0)
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
	_, err = tx.Exec("INSERT INTO plain VALUES (-1)")
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
	throughPgBouncer()
}
