package sql_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	sqlmetrics "github.com/aviary-rollouts/aviary/activities/metrics/sql"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/stack"
	"github.com/aviary-rollouts/aviary/rollout"
)

// server is one PostgreSQL for all tests. Each has a database of its own.
var server *stack.Postgres

func TestMain(m *testing.M) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	var err error
	server, err = stack.NewPostgres(ctx)
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "metrics/sql:", err)
		os.Exit(1)
	}
	code := m.Run()
	if err := server.Remove(); err != nil {
		fmt.Fprintln(os.Stderr, "metrics/sql:", err)
		code = 1
	}
	os.Exit(code)
}

var databases atomic.Int64

// database is one of a test's own, with a table of what agents did.
type database struct {
	t      *testing.T
	server *stack.Postgres
	name   string
}

const table = `
	CREATE TABLE calls (
		at timestamptz NOT NULL, agent text NOT NULL, version text NOT NULL, failed boolean NOT NULL, cost double precision NOT NULL
	);
	CREATE INDEX ON calls (agent, at);`

func newDatabase(t *testing.T) *database {
	t.Helper()
	return databaseOn(t, server)
}

func databaseOn(t *testing.T, s *stack.Postgres) *database {
	t.Helper()
	d := &database{t: t, server: s, name: fmt.Sprintf("test%d", databases.Add(1))}
	(&database{t: t, server: s, name: "postgres"}).do("CREATE DATABASE " + d.name)
	d.do(table)
	return d
}

// do runs SQL as the superuser.
func (d *database) do(text string, args ...any) {
	d.t.Helper()
	if err := d.try(text, args...); err != nil {
		d.t.Fatal(err)
	}
}

// try is do where the test can't be ended.
func (d *database) try(text string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.server.DSN(d.name))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, text, args...); err != nil {
		return fmt.Errorf("%s: %w", text, err)
	}
	return nil
}

// add notes calls of a version that ended some time ago.
func (d *database) add(version string, ago time.Duration, n, failed int) {
	d.t.Helper()
	d.do(`INSERT INTO calls SELECT now() - make_interval(secs => $1), 'support', $2, i <= $4, 0.5 FROM generate_series(1, $3::int) AS i`,
		ago.Seconds(), version, n, failed)
}

// role is a login that may do nothing but what is granted to it.
func (d *database) role(grants ...string) (dsn string) {
	d.t.Helper()
	name := d.name + "_reader"
	d.do("CREATE ROLE " + name + " LOGIN PASSWORD 'hush'")
	for _, g := range grants {
		d.do(strings.ReplaceAll(g, "READER", name))
	}
	return d.server.DSNOf(name, "hush", d.name, d.server.Address)
}

// open is a provider of the database.
func (d *database) open(s sqlmetrics.Settings) *sqlmetrics.Provider {
	d.t.Helper()
	if s.DSN == "" {
		s.DSN = d.server.DSN(d.name)
	}
	p, err := sqlmetrics.New(s)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(p.Close)
	return p
}

const (
	failures = `SELECT version, count(*) FILTER (WHERE failed) AS events, count(*) AS trials FROM calls
		WHERE agent = @agent AND version = ANY(@versions) AND at > @from AND at <= @to GROUP BY version`
	costs = `SELECT version, sum(cost) AS sum, count(*) AS count, sum(cost * cost) AS sum_of_squares FROM calls
		WHERE agent = @agent AND version = ANY(@versions) AND at > @from AND at <= @to GROUP BY version`
	dearest = `SELECT version, max(cost) AS value FROM calls WHERE agent = @agent AND version = ANY(@versions) GROUP BY version`
)

func metric(name string, kind analysis.Kind, query string) metrics.Metric {
	return metrics.Metric{Metric: analysis.Metric{Name: name, Kind: kind}, Definition: &rollout.Definition{Query: query}}
}

func request(of ...metrics.Metric) metrics.Request {
	return metrics.Request{Agent: "support", Stable: "v41", Canary: "v42", Metrics: of}
}

func ratio(query string) metrics.Request { return request(metric("error_rate", analysis.Ratio, query)) }

// ask samples within a bound.
func ask(t *testing.T, p *sqlmetrics.Provider, r metrics.Request) (metrics.Samples, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return p.Sample(ctx, r)
}

// sample samples, and moves the request's cursor on.
func sample(t *testing.T, p *sqlmetrics.Provider, r *metrics.Request) metrics.Samples {
	t.Helper()
	s, err := ask(t, p, *r)
	if err != nil {
		t.Fatal(err)
	}
	r.Cursor = s.Cursor
	return s
}

// cursor is one of some time ago.
func cursor(ago time.Duration) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"v":1,"at":%d}`, time.Now().Add(-ago).UnixMicro()))
}

// wants compares what a metric counted, as events of trials, or a sum of observations.
func wants(t *testing.T, s metrics.Samples, name string, stable, canary [2]float64) {
	t.Helper()
	got := s.Metrics[name]
	if (got.Stable.X != stable[0]) || got.Stable.N != stable[1] || got.Canary.X != canary[0] || got.Canary.N != canary[1] {
		t.Errorf("%s: %v of %v and %v of %v, want %v of %v and %v of %v", name, got.Stable.X, got.Stable.N, got.Canary.X, got.Canary.N,
			stable[0], stable[1], canary[0], canary[1])
	}
}

// wire is a way to the server that can be cut, and made to swallow everything.
type wire struct {
	address string
	mu      sync.Mutex
	silent  bool
	conns   []net.Conn
}

func newWire(t *testing.T) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{address: l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		w.cut()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", server.Address)
			if err != nil {
				in.Close()
				continue
			}
			w.mu.Lock()
			w.conns = append(w.conns, in, out)
			w.mu.Unlock()
			wg.Go(func() { w.copy(out, in) })
			wg.Go(func() { w.copy(in, out) })
		}
	})
	return w
}

// copy passes bytes on until one side ends. Silence loses them.
func (w *wire) copy(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		silent := w.silent
		w.mu.Unlock()
		if silent {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w *wire) hang(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = on
}

// cut ends every connection.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}
