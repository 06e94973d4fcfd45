package sql_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	sqlmetrics "github.com/aviary-rollouts/aviary/activities/metrics/sql"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

func TestEveryKind(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.add("v41", time.Hour, 100, 50) // before the first look: not ours
	p := d.open(sqlmetrics.Settings{})
	r := request(metric("error_rate", analysis.Ratio, failures), metric("failed_calls", analysis.Count, failures), metric("cost_per_task", analysis.Mean, costs),
		metric("dearest", analysis.Value, dearest))
	first := sample(t, p, &r)
	for name, s := range first.Metrics {
		if s.Stable.N != 0 || s.Stable.X != 0 || s.Stable.HasValue {
			t.Errorf("the first look counts %s: %+v", name, s)
		}
	}
	d.add("v41", 0, 10, 2)
	d.add("v42", 0, 4, 1)
	d.add("v40", 0, 7, 7)
	s := sample(t, p, &r)
	wants(t, s, "error_rate", [2]float64{2, 10}, [2]float64{1, 4})
	wants(t, s, "failed_calls", [2]float64{2, 10}, [2]float64{1, 4})
	wants(t, s, "cost_per_task", [2]float64{5, 10}, [2]float64{2, 4})
	if got := s.Metrics["dearest"]; !got.Stable.HasValue || got.Stable.Value != 0.5 || got.Canary.Value != 0.5 {
		t.Errorf("value %+v", got)
	}
	if s.Requests != (rollout.Requests{Stable: 10, Canary: 4}) {
		t.Errorf("requests %+v", s.Requests)
	}
	if s.At.Before(first.At) || s.Behind != 0 {
		t.Errorf("as of %s after %s, behind %s", s.At, first.At, s.Behind)
	}
	wants(t, sample(t, p, &r), "error_rate", [2]float64{}, [2]float64{}) // once
}

// TestRequestsAreOfTheBestMetric: total_requests counts them, else error_rate, else the first ratio by name.
func TestRequestsAreOfTheBestMetric(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.add("v41", 30*time.Second, 10, 2)
	p := d.open(sqlmetrics.Settings{})
	twice := strings.Replace(failures, "count(*) AS trials", "2 * count(*) AS trials", 1)
	thrice := strings.Replace(failures, "count(*) AS trials", "3 * count(*) AS trials", 1)
	for name, tt := range map[string]struct {
		of   []metrics.Metric
		want float64
	}{
		"total_requests": {[]metrics.Metric{metric("a_rate", analysis.Ratio, failures), metric("error_rate", analysis.Ratio, twice),
			metric(analysis.TotalRequests, analysis.Count, thrice)}, 30},
		"error_rate":  {[]metrics.Metric{metric("a_rate", analysis.Ratio, failures), metric("error_rate", analysis.Ratio, twice)}, 20},
		"the first":   {[]metrics.Metric{metric("b_rate", analysis.Ratio, twice), metric("a_rate", analysis.Ratio, failures)}, 10},
		"none counts": {[]metrics.Metric{metric("cost", analysis.Mean, costs)}, 0},
		"implied": {[]metrics.Metric{{Metric: analysis.Metric{Name: analysis.TotalRequests, Kind: analysis.Count}},
			metric("error_rate", analysis.Ratio, failures)}, 10},
	} {
		r := request(tt.of...)
		r.Cursor = cursor(time.Minute)
		if got := sample(t, p, &r).Requests.Stable; got != tt.want {
			t.Errorf("%s: %v requests, want %v", name, got, tt.want)
		}
	}
}

// TestCountsEachRowOnce: while rows are written all the time, polls add up to all of them, each once, if the delay covers how long writing takes.
func TestCountsEachRowOnce(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	const delay = 3 * time.Second
	p := d.open(sqlmetrics.Settings{Delay: delay})
	r := ratio(failures)
	sample(t, p, &r)
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range 40 {
			// The time is taken a while before the row can be seen.
			if err := d.try(`WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS at), later AS MATERIALIZED (SELECT at, pg_sleep(0.02) FROM moment)
				INSERT INTO calls SELECT at, 'support', 'v42', false, 1 FROM later`); err != nil {
				t.Error(err)
			}
		}
	}()
	total, polls := 0.0, 0
	for done := false; !done; polls++ {
		select {
		case <-written:
			done = true
		default:
		}
		total += sample(t, p, &r).Requests.Canary
	}
	deadline := time.Now().Add(20 * time.Second)
	for total < 40 && time.Now().Before(deadline) {
		total += sample(t, p, &r).Requests.Canary
	}
	total += sample(t, p, &r).Requests.Canary
	if total != 40 {
		t.Errorf("counted %v of 40 rows in %d polls and the rest", total, polls)
	}
}

// TestDelay: rows younger than the delay come with a later poll.
func TestDelay(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.open(sqlmetrics.Settings{Delay: time.Hour})
	r := ratio(failures)
	r.Cursor = cursor(100 * time.Minute) // so that the delay bounds the poll, not the hour that one may ask for
	d.add("v41", 90*time.Minute, 5, 0)
	d.add("v41", 30*time.Minute, 7, 0)
	s := sample(t, p, &r)
	wants(t, s, "error_rate", [2]float64{0, 5}, [2]float64{})
	if ago := time.Since(s.At); ago < 59*time.Minute || ago > 61*time.Minute {
		t.Errorf("as of %s ago, want an hour", ago)
	}
	d.do(`UPDATE calls SET at = at - interval '31 minutes' WHERE at > now() - interval '1 hour'`)
	r.Cursor = cursor(62 * time.Minute)
	wants(t, sample(t, p, &r), "error_rate", [2]float64{0, 7}, [2]float64{})
}

// TestCatchesUp: after a long pause a poll asks for an hour, and the next ones for the rest.
func TestCatchesUp(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.open(sqlmetrics.Settings{})
	r := ratio(failures)
	r.Cursor = cursor(100 * time.Minute)
	d.add("v41", 70*time.Minute, 5, 0)
	d.add("v41", 10*time.Minute, 6, 0)
	one := sample(t, p, &r)
	two := sample(t, p, &r)
	wants(t, one, "error_rate", [2]float64{0, 5}, [2]float64{})
	wants(t, two, "error_rate", [2]float64{0, 6}, [2]float64{})
	if gap := time.Since(one.At); gap < 39*time.Minute || gap > 41*time.Minute {
		t.Errorf("the first was as of %s ago, want 40 min", gap)
	}
}

// TestClockThatWasSetBack: a cursor ahead of the database's clock counts nothing, and stays.
func TestClockThatWasSetBack(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.open(sqlmetrics.Settings{})
	r := ratio(failures)
	r.Cursor = cursor(-time.Hour)
	d.add("v41", 0, 5, 0)
	before := string(r.Cursor)
	s := sample(t, p, &r)
	wants(t, s, "error_rate", [2]float64{}, [2]float64{})
	if string(s.Cursor) != before {
		t.Errorf("the cursor went from %s to %s", before, s.Cursor)
	}
}

// TestTimesAreOfOneZone: a column without a time zone is taken for UTC, whatever the role or the server says.
func TestTimesAreOfOneZone(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.do(`CREATE TABLE bare (at timestamp NOT NULL, version text NOT NULL)`)
	d.do(`INSERT INTO bare VALUES (now() AT TIME ZONE 'UTC' - interval '10 seconds', 'v42')`)
	dsn := d.role("GRANT SELECT ON bare TO READER", "ALTER ROLE READER SET TimeZone = 'Asia/Tokyo'")
	p := d.open(sqlmetrics.Settings{DSN: dsn})
	r := ratio(`SELECT version, 0 AS events, count(*) AS trials FROM bare WHERE at::timestamptz > @from AND at::timestamptz <= @to GROUP BY version`)
	r.Cursor = cursor(time.Minute)
	wants(t, sample(t, p, &r), "error_rate", [2]float64{}, [2]float64{0, 1})
}

// TestOneMoment: all queries of a poll see the same rows, though some are written in between.
func TestOneMoment(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.do(`CREATE TABLE gate (open boolean); INSERT INTO gate VALUES (true)`)
	p := d.open(sqlmetrics.Settings{})
	// a_rate is asked first, and takes a second: meanwhile rows of before @to come in.
	slow := `WITH late AS MATERIALIZED (SELECT pg_sleep(1)) ` + strings.Replace(failures, "FROM calls", "FROM late, calls", 1)
	r := request(metric("a_rate", analysis.Ratio, slow), metric("b_rate", analysis.Ratio, failures))
	r.Cursor = cursor(time.Hour)
	d.add("v41", 30*time.Minute, 3, 0)
	late := make(chan struct{})
	go func() {
		defer close(late)
		for range 20 {
			if err := d.try(`INSERT INTO calls SELECT now() - interval '30 minutes', 'support', 'v41', false, 1 FROM pg_sleep(0.05)`); err != nil {
				t.Error(err)
			}
		}
	}()
	s := sample(t, p, &r)
	<-late
	if a, b := s.Metrics["a_rate"].Stable.N, s.Metrics["b_rate"].Stable.N; a != b || a < 3 {
		t.Errorf("one query saw %v rows, the other %v", a, b)
	}
}

// TestOneQueryForSeveralMetrics is asked once.
func TestOneQueryForSeveralMetrics(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	p := d.open(sqlmetrics.Settings{})
	both := `SELECT version, 1 AS events, 2 AS trials, random() AS sum, 1 AS count FROM (VALUES ('v41'), ('v42')) AS v (version)`
	r := request(metric("a_cost", analysis.Mean, both), metric("b_cost", analysis.Mean, both), metric("c_rate", analysis.Ratio, both))
	r.Cursor = cursor(time.Minute)
	s := sample(t, p, &r)
	if a, b := s.Metrics["a_cost"].Stable.X, s.Metrics["b_cost"].Stable.X; a != b || a == 0 {
		t.Errorf("sums %v and %v, want one answer for both", a, b)
	}
	wants(t, s, "c_rate", [2]float64{1, 2}, [2]float64{1, 2})
}

// TestAnswersThatCount: the types that columns may have, and what a query may say besides.
func TestAnswersThatCount(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	d.do(`CREATE TYPE release AS ENUM ('v41', 'v42')`)
	p := d.open(sqlmetrics.Settings{})
	for name, query := range map[string]string{
		"integers":         `SELECT 'v41' AS version, 1::int AS events, 2::smallint AS trials`,
		"bigint":           `SELECT 'v41' AS version, 1::bigint AS events, 2::bigint AS trials`,
		"numeric":          `SELECT 'v41' AS version, 1::numeric AS events, 2.0::numeric AS trials`,
		"floats":           `SELECT 'v41' AS version, 1::real AS events, 2::double precision AS trials`,
		"other columns":    `SELECT 7 AS x, 'v41'::varchar AS version, 'y' AS y, 2 AS trials, 1 AS events, 4 AS sum_of_squares`,
		"an enum":          `SELECT 'v41'::release AS version, 1 AS events, 2 AS trials`,
		"char":             `SELECT 'v41'::char(9) AS version, 1 AS events, 2 AS trials`,
		"others' versions": `SELECT * FROM (VALUES ('v40', 9, 9), ('v41', 1, 2), ('', 3, 3)) AS v (version, events, trials)`,
		"a comment":        "-- it's @nobody's\nSELECT 'v41' AS version, 1 AS events, 2 AS trials /* @nor this */",
		"a string":         `SELECT 'v41' AS version, 1 AS events, 2 AS trials WHERE '@agent' <> @agent`,
	} {
		r := ratio(query)
		r.Cursor = cursor(time.Minute)
		s, err := ask(t, p, r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Log(name)
		wants(t, s, "error_rate", [2]float64{1, 2}, [2]float64{})
	}
}

// TestCursorOutlivesTheProvider, and one that is not ours is told apart from one of a newer version.
func TestCursorOutlivesTheProvider(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	r := ratio(failures)
	one := d.open(sqlmetrics.Settings{})
	sample(t, one, &r)
	one.Close()
	d.add("v42", 0, 3, 1)
	wants(t, sample(t, d.open(sqlmetrics.Settings{}), &r), "error_rate", [2]float64{}, [2]float64{1, 3})

	p := d.open(sqlmetrics.Settings{})
	r.Cursor = json.RawMessage(`{"v":2,"at":"anything"}`)
	if _, err := ask(t, p, r); !errors.Is(err, metrics.ErrNewer) {
		t.Errorf("a newer cursor: %v", err)
	}
	for _, bad := range []string{`{`, `[]`, `{"v":1}`, `{"v":1,"at":-5}`, `{"v":0,"at":5}`, `"x"`} {
		var never *metrics.Rejected
		r.Cursor = json.RawMessage(bad)
		if _, err := ask(t, p, r); !errors.As(err, &never) {
			t.Errorf("cursor %s: %v", bad, err)
		}
	}
}
