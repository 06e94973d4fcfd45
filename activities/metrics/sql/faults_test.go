package sql_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	sqlmetrics "github.com/aviary-rollouts/aviary/activities/metrics/sql"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/stack"
)

// TestQueriesThatCanNotBe are refused for good at the first look, and are a passing fault later: somebody may be changing the tables.
func TestQueriesThatCanNotBe(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.do(`CREATE TABLE salaries (version text, events int, trials int)`)
	dsn := d.role("GRANT SELECT ON calls TO READER")
	p := d.open(sqlmetrics.Settings{DSN: dsn})
	const row = `SELECT 'v41' AS version, 1 AS events, 2 AS trials`
	for name, tt := range map[string]struct{ query, want string }{
		"syntax":           {`SELEC version`, `syntax error at or near "SELEC" (SQLSTATE 42601)`},
		"no such table":    {strings.Replace(failures, "calls", "cals", 1), `relation "cals" does not exist`},
		"no such column":   {strings.Replace(failures, "failed", "faild", 1), `column "faild" does not exist`},
		"no right":         {`SELECT * FROM salaries`, "permission denied for table salaries"},
		"unknown argument": {strings.Replace(failures, "@from", "@form", 1), "want @agent, @versions, @from and @to"},
		"two statements":   {row + `; DROP TABLE calls`, "cannot insert multiple commands into a prepared statement"},
		"it writes":        {`INSERT INTO calls VALUES (now(), 'x', 'v41', true, 1) RETURNING version, 1 AS events, 1 AS trials`, "may only read"},
		"it writes aside":  {`WITH gone AS (DELETE FROM calls RETURNING *) ` + row, "may only read"},
		"no version":       {`SELECT 1 AS events, 2 AS trials`, "without a column version, want version, events and trials"},
		"no trials":        {`SELECT 'v41' AS version, 1 AS events`, "without a column trials"},
		"doubled":          {`SELECT 'v41' AS version, 1 AS events, 2 AS trials, 3 AS trials`, "two columns trials"},
		"text for number":  {`SELECT 'v41' AS version, '1'::text AS events, 2 AS trials`, "column events is of type text, want a number"},
		"time for number":  {`SELECT 'v41' AS version, now() AS events, 2 AS trials`, "column events is of type timestamptz"},
		"number for text":  {`SELECT 41 AS version, 1 AS events, 2 AS trials`, "column version is of type int4, want text"},
		"nothing":          {`SELECT`, "without a column version"},
		"too many rows":    {`SELECT 'v' || i AS version, 1 AS events, 2 AS trials FROM generate_series(1, 2000) AS i`, "more than 1000 rows"},
	} {
		r := ratio(tt.query)
		var never *metrics.Rejected
		if _, err := ask(t, p, r); !errors.As(err, &never) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "metric error_rate") {
			t.Errorf("%s, at first: %v, want it refused with %q", name, err, tt.want)
		}
		r.Cursor = cursor(time.Minute)
		if _, err := ask(t, p, r); err == nil || errors.As(err, &never) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, later: %v, want a passing fault with %q", name, err, tt.want)
		}
	}
	d.add("v41", 0, 1, 0) // the table is still there
}

// TestNothingCountsAsZero because it makes no sense: an answer without numbers is a fault, at any poll.
func TestNothingCountsAsZero(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.open(sqlmetrics.Settings{})
	for name, tt := range map[string]struct {
		kind        analysis.Kind
		query, want string
	}{
		"null events":     {analysis.Ratio, `SELECT 'v41' AS version, NULL::int AS events, 2 AS trials`, "version v41: column events is NULL, want a number, as by coalesce"},
		"null version":    {analysis.Ratio, `SELECT NULL::text AS version, 1 AS events, 2 AS trials`, "column version is NULL"},
		"NaN":             {analysis.Mean, `SELECT 'v41' AS version, 'NaN'::float8 AS sum, 2 AS count`, "NaN, want a finite number"},
		"numeric NaN":     {analysis.Mean, `SELECT 'v41' AS version, 'NaN'::numeric AS sum, 2 AS count`, "column sum is"},
		"infinite":        {analysis.Value, `SELECT 'v42' AS version, 'Infinity'::float8 AS value`, "version v42: column value is +Inf"},
		"numeric beyond":  {analysis.Value, `SELECT 'v42' AS version, 1e400::numeric AS value`, "column value is"},
		"negative":        {analysis.Ratio, `SELECT 'v41' AS version, -1 AS events, 2 AS trials`, "column events is -1, want 0 or more"},
		"negative count":  {analysis.Mean, `SELECT 'v41' AS version, 1 AS sum, -2 AS count`, "column count is -2"},
		"too many":        {analysis.Count, `SELECT 'v41' AS version, 1 AS events, 9223372036854775807 AS trials`, "want at most 2^53"},
		"more than all":   {analysis.Ratio, `SELECT 'v41' AS version, 3 AS events, 2 AS trials`, "events are 3 and trials 2: more events than trials"},
		"sum of nothing":  {analysis.Mean, `SELECT 'v41' AS version, 3 AS sum, 0 AS count`, "sum is 3 of no observations"},
		"a version twice": {analysis.Ratio, `SELECT 'v42' AS version, 1 AS events, 2 AS trials FROM generate_series(1, 2)`, "answers twice for version v42"},
		"char, doubled":   {analysis.Ratio, `SELECT v::char(5) AS version, 1 AS events, 2 AS trials FROM (VALUES ('v42'), ('v42 ')) AS w (v)`, "answers twice"},
	} {
		r := request(metric("m", tt.kind, tt.query))
		r.Cursor = cursor(time.Minute)
		var never *metrics.Rejected
		if _, err := ask(t, p, r); err == nil || errors.As(err, &never) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want a passing fault with %q", name, err, tt.want)
		}
	}
	// More events than trials is nothing wrong with a count.
	r := request(metric("retries", analysis.Count, `SELECT 'v41' AS version, 3 AS events, 2 AS trials`))
	r.Cursor = cursor(time.Minute)
	wants(t, sample(t, p, &r), "retries", [2]float64{3, 2}, [2]float64{})
}

func TestRequestsThatCanNotBe(t *testing.T) {
	t.Parallel()
	p := newDatabase(t).open(sqlmetrics.Settings{})
	preset, _ := analysis.Preset("error_rate")
	for name, tt := range map[string]struct {
		change func(*metrics.Request)
		want   string
	}{
		"a preset":        {func(r *metrics.Request) { r.Metrics = append(r.Metrics, metrics.Metric{Metric: preset}) }, "has no definition, and the provider sql has no presets"},
		"a quantile":      {func(r *metrics.Request) { r.Metrics[0].Kind = analysis.Quantile }, "kind quantile can't be had"},
		"a forged agent":  {func(r *metrics.Request) { r.Agent = "x' OR true --" }, "agent \"x' OR true --\""},
		"a forged canary": {func(r *metrics.Request) { r.Canary = "v42'; DROP TABLE calls; --" }, "canary"},
		"no stable":       {func(r *metrics.Request) { r.Stable = "" }, "stable"},
	} {
		r := ratio(failures)
		tt.change(&r)
		var never *metrics.Rejected
		if _, err := ask(t, p, r); !errors.As(err, &never) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want it refused with %q", name, err, tt.want)
		}
	}
}

func TestAQueryThatTakesTooLong(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.add("v41", 30*time.Second, 5, 0)
	p := d.open(sqlmetrics.Settings{Timeout: 200 * time.Millisecond})
	r := ratio(strings.Replace(failures, "FROM calls", "FROM pg_sleep(60), calls", 1))
	r.Cursor = cursor(time.Minute)
	began := time.Now()
	if _, err := ask(t, p, r); err == nil || !strings.Contains(err.Error(), "a query may take 200ms") || !strings.Contains(err.Error(), "index") {
		t.Errorf("error %v", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	r = ratio(failures) // and the connection is as good as before
	r.Cursor = cursor(time.Minute)
	wants(t, sample(t, p, &r), "error_rate", [2]float64{0, 5}, [2]float64{})
}

// TestNoConnectionFree: a database that is full asks for a pause.
func TestNoConnectionFree(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	dsn := d.role("GRANT SELECT ON calls TO READER", "ALTER ROLE READER CONNECTION LIMIT 0")
	p := d.open(sqlmetrics.Settings{DSN: dsn})
	var busy *metrics.Busy
	if _, err := ask(t, p, ratio(failures)); !errors.As(err, &busy) || busy.RetryAfter != 10*time.Second {
		t.Errorf("error %v, want busy for 10 s", err)
	}
}

// TestNeverMoreThanTwoConnections, however many rollouts ask at once.
func TestNeverMoreThanTwoConnections(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.open(sqlmetrics.Settings{})
	most := `SELECT 'v41' AS version, count(*) AS events, count(*) AS trials FROM pg_stat_activity, pg_sleep(0.05) WHERE datname = current_database() AND application_name = 'aviary'`
	got := make(chan float64)
	for range 12 {
		go func() {
			r := ratio(most)
			r.Cursor = cursor(time.Minute)
			s, err := ask(t, p, r)
			if err != nil {
				t.Error(err)
			}
			got <- s.Metrics["error_rate"].Stable.N
		}()
	}
	for range 12 {
		if n := <-got; n < 1 || n > 2 {
			t.Errorf("%v connections, want 1 or 2", n)
		}
	}
}

// TestServerDownAndBack: nothing is lost while the server is away.
func TestServerDownAndBack(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	own, err := stack.NewPostgres(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.Remove(); err != nil {
			t.Error(err)
		}
	})
	d := databaseOn(t, own)
	p := d.open(sqlmetrics.Settings{})
	r := ratio(failures)
	sample(t, p, &r)
	d.add("v42", 0, 3, 1)
	own.Kill()
	for range 3 {
		var never *metrics.Rejected
		_, err := ask(t, p, r)
		if err == nil || errors.As(err, &never) || !strings.Contains(err.Error(), own.Address) || strings.Contains(err.Error(), "\n") {
			t.Errorf("while it is down: %v", err)
		}
		quiet(t, own, err)
	}
	if err := own.Start(ctx); err != nil {
		t.Fatal(err)
	}
	wants(t, sample(t, p, &r), "error_rate", [2]float64{}, [2]float64{1, 3})
}

// TestServerThatHangs, and a network that cuts connections.
func TestServerThatHangs(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	w := newWire(t)
	dsn := strings.Replace(server.DSN(d.name), server.Address, w.address, 1)
	p := d.open(sqlmetrics.Settings{DSN: dsn, Timeout: 2 * time.Second}) // a busy machine takes a while to log in
	r := ratio(failures)
	sample(t, p, &r)
	d.add("v41", 0, 5, 2)
	w.hang(true)
	began := time.Now()
	for range 2 { // an open connection, and a new one
		_, err := ask(t, p, r)
		if err == nil || !strings.Contains(err.Error(), w.address) {
			t.Errorf("while it hangs: %v", err)
		}
		quiet(t, server, err)
	}
	if took := time.Since(began); took > 25*time.Second {
		t.Errorf("waited %s", took)
	}
	w.cut()
	w.hang(false)
	wants(t, sample(t, p, &r), "error_rate", [2]float64{2, 5}, [2]float64{})
	w.cut()
	d.add("v41", 0, 1, 0)
	if s, err := ask(t, p, r); err == nil {
		r.Cursor = s.Cursor
		wants(t, s, "error_rate", [2]float64{0, 1}, [2]float64{})
	} else { // one poll may meet the connection that is gone
		wants(t, sample(t, p, &r), "error_rate", [2]float64{0, 1}, [2]float64{})
	}
}

// TestCallerThatIsGone gets an error at once, and leaves nothing running.
func TestCallerThatIsGone(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.open(sqlmetrics.Settings{})
	r := ratio(strings.Replace(failures, "FROM calls", "FROM pg_sleep(60), calls", 1))
	r.Cursor = cursor(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := p.Sample(ctx, r)
		gone <- err
	}()
	running := func() float64 {
		q := ratio(`SELECT 'v41' AS version, 0 AS events, count(*) AS trials FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep(60)%' AND state = 'active' AND pid <> pg_backend_pid()`)
		q.Cursor = cursor(time.Minute)
		s, err := ask(t, p, q)
		if err != nil {
			t.Fatal(err)
		}
		return s.Metrics["error_rate"].Stable.N
	}
	until(t, "the query runs", func() bool { return running() == 1 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	until(t, "the server gave it up", func() bool { return running() == 0 })
}

// TestNothingLeaks: a provider that is closed leaves no goroutine, though its last poll failed.
func TestNothingLeaks(t *testing.T) {
	d := newDatabase(t)
	before := runtime.NumGoroutine()
	for range 10 {
		p, err := sqlmetrics.New(sqlmetrics.Settings{DSN: server.DSN(d.name), Timeout: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		r := ratio(strings.Replace(failures, "FROM calls", "FROM pg_sleep(60), calls", 1))
		r.Cursor = cursor(time.Minute)
		if _, err := ask(t, p, r); err == nil {
			t.Error("it took a query of a minute")
		}
		p.Close()
	}
	until(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+2 })
}

// quiet fails if an error tells a password.
func quiet(t *testing.T, s *stack.Postgres, err error) {
	t.Helper()
	_, secret, _ := strings.Cut(s.DSN(""), "aviary:")
	secret, _, _ = strings.Cut(secret, "@")
	if len(secret) < 10 || err != nil && strings.Contains(err.Error(), secret) {
		t.Errorf("the error tells the password: %v", err)
	}
}

func TestNoErrorTellsThePassword(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	for name, dsn := range map[string]string{
		"wrong password": server.DSNOf("aviary", "hush-hush", d.name, server.Address),
		"no such role":   server.DSNOf("nobody-here", "hush-hush", d.name, server.Address),
		"no such base":   strings.Replace(server.DSN("nowhere"), "aviary:", "aviary:", 1),
		"nobody listens": server.DSNOf("aviary", "hush-hush", d.name, "127.0.0.1:1"),
		"no such host":   server.DSNOf("aviary", "hush-hush", d.name, "no-such-host.invalid:5432"),
	} {
		p := d.open(sqlmetrics.Settings{DSN: dsn, Timeout: 5 * time.Second})
		_, err := ask(t, p, ratio(failures))
		if err == nil || strings.Contains(err.Error(), "hush-hush") {
			t.Errorf("%s: %v", name, err)
		}
		quiet(t, server, err)
	}
	for _, bad := range []string{"postgres://aviary:hush-hush@host:port/x", "hush-hush", "host=x sslmode=hush-hush", "mysql://a:hush-hush@b/c", "postgres://a:hush-hush@h/x?pool_max_conns=many"} {
		if _, err := sqlmetrics.New(sqlmetrics.Settings{DSN: bad}); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("dsn %q: %v", bad, err)
		}
	}
	p := d.open(sqlmetrics.Settings{DSN: server.DSNOf("aviary", "x", d.name, server.Address)})
	if _, err := ask(t, p, ratio(failures)); err == nil || !strings.Contains(err.Error(), server.Address) || !strings.Contains(err.Error(), "SQLSTATE 28P01") {
		t.Errorf("wrong password: %v, want the address and what PostgreSQL says", err)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
